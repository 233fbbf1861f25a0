#include "report/expert_load.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <numeric>

#include "report/progress_line.h"

namespace moerun {

namespace {

/// [layers · num_experts] tokens of one rank's experts.
std::vector<uint64_t> tokens_of(const RankReport& rank, LoadPeriod period) {
  const std::vector<uint64_t>& before = rank.placement.expert_tokens;
  if (period == LoadPeriod::before_placement) return before;
  std::vector<uint64_t> tokens = rank.expert_tokens;
  if (period == LoadPeriod::after_placement)
    for (size_t i = 0; i < before.size(); ++i) tokens[i] -= before[i];
  return tokens;
}

/// Of the engine in which it is greatest.
double max_over_mean(const std::map<int, std::vector<uint64_t>>& ranks_of_engine) {
  double worst = 0;
  for (const auto& [replica, ranks] : ranks_of_engine) {
    const uint64_t total = std::accumulate(ranks.begin(), ranks.end(), uint64_t{0});
    if (total > 0)
      worst = std::max(worst, static_cast<double>(*std::max_element(ranks.begin(), ranks.end())) *
                                  static_cast<double>(ranks.size()) / static_cast<double>(total));
  }
  return worst;
}

}  // namespace

double ExpertLoad::worst_layer() const {
  return max_over_mean_of_layer.empty()
             ? 0
             : *std::max_element(max_over_mean_of_layer.begin(), max_over_mean_of_layer.end());
}

ExpertLoad expert_load(const JobReport& report, LoadPeriod period) {
  const auto num_experts = static_cast<size_t>(report.num_experts);
  ExpertLoad load;
  load.of_expert.resize(num_experts);
  std::map<int, std::vector<uint64_t>> whole;                // replica → its ranks
  std::vector<std::map<int, std::vector<uint64_t>>> layers;  // the same of each layer
  for (const RankReport& rank : report.ranks) {
    const std::vector<uint64_t> tokens = tokens_of(rank, period);
    const size_t num_layers = num_experts > 0 ? tokens.size() / num_experts : 0;
    layers.resize(std::max(layers.size(), num_layers));
    load.of_layer.resize(layers.size(), std::vector<uint64_t>(num_experts));
    for (size_t layer = 0; layer < num_layers; ++layer) {
      const auto* const of_layer = tokens.data() + layer * num_experts;
      for (size_t expert = 0; expert < num_experts; ++expert) {
        load.of_expert[expert] += of_layer[expert];
        load.of_layer[layer][expert] += of_layer[expert];
      }
      layers[layer][rank.replica].push_back(std::accumulate(of_layer, of_layer + num_experts, uint64_t{0}));
    }
    load.of_rank.push_back(std::accumulate(tokens.begin(), tokens.end(), uint64_t{0}));
    whole[rank.replica].push_back(load.of_rank.back());
  }
  load.max_over_mean = max_over_mean(whole);
  for (const auto& layer : layers) load.max_over_mean_of_layer.push_back(max_over_mean(layer));
  return load;
}

const PlacementReport& least_placed(const JobReport& report) {
  return std::min_element(report.ranks.begin(), report.ranks.end(),
                          [](const RankReport& a, const RankReport& b) {
                            return a.placement.placements < b.placement.placements;
                          })
      ->placement;
}

std::string placement_sentence(const JobReport& report) {
  const PlacementReport& least = least_placed(report);
  if (least.placements == 0) return "no copies were placed: too few tokens were routed";
  const ExpertLoad before = expert_load(report, LoadPeriod::before_placement),
                   after = expert_load(report, LoadPeriod::after_placement);
  return fmt::format(
      "busiest rank {:.2f} × the mean in the first {} tokens, {:.2f} × once copies were placed; "
      "in the worst layer {:.2f} × and {:.2f} ×",
      before.max_over_mean, with_commas(static_cast<uint64_t>(least.counted_tokens)), after.max_over_mean,
      before.worst_layer(), after.worst_layer());
}

}  // namespace moerun
