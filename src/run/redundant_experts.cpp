#include "run/redundant_experts.h"

#include <chrono>
#include <numeric>
#include <utility>

#include "comm/expert_copies.h"
#include "comm/mpi_env.h"

namespace moerun {

RedundantExperts::RedundantExperts(Parts parts) : parts_(std::move(parts)) {
  MPI_CHECK(MPI_Comm_rank(parts_.ep, &rank_));
}

void RedundantExperts::submit(const StepPlan& plan, const std::vector<int32_t>& tokens_of_rank) {
  if (!placed_) {
    if (report_.counted_tokens >= kCountedTokens)
      place();
    else
      report_.counted_tokens =
          std::accumulate(tokens_of_rank.begin(), tokens_of_rank.end(), report_.counted_tokens);
  }
  parts_.model->submit(plan, tokens_of_rank);
}

void RedundantExperts::place() {
  const auto began = std::chrono::steady_clock::now();
  placed_ = true;
  report_.expert_tokens = parts_.model->expert_tokens();
  std::vector<uint64_t> tokens = report_.expert_tokens;
  {
    const Waiting waiting(parts_.progress);
    MPI_CHECK(MPI_Allreduce(MPI_IN_PLACE, tokens.data(), static_cast<int>(tokens.size()), MPI_UINT64_T,
                            MPI_SUM, parts_.ep));
  }
  const auto num_experts = static_cast<size_t>(parts_.map->num_experts());
  const auto num_layers = static_cast<int64_t>(tokens.size() / num_experts);
  std::vector<std::vector<ExpertCopy>> copies;  // [layers]
  std::vector<ExpertPlace> places;
  for (int64_t layer = 0; layer < num_layers; ++layer) {
    const std::span of_layer(tokens.data() + static_cast<size_t>(layer) * num_experts, num_experts);
    for (const ExpertCopy& copy : copies.emplace_back(place_copies(*parts_.map, of_layer))) {
      if (copy.rank != rank_) continue;
      places.push_back({.layer = layer, .slot = copy.slot, .expert = copy.expert});
      report_.copies.push_back({.layer = static_cast<int32_t>(layer),
                                .expert = copy.expert,
                                .share = static_cast<double>(copy.turns) / kExpertTurns});
    }
  }
  parts_.load(places);
  for (int64_t layer = 0; layer < num_layers; ++layer) {
    const std::vector<ExpertCopy>& here = copies[static_cast<size_t>(layer)];
    parts_.model->place_experts(layer, slots_with_copies(*parts_.map, here, rank_),
                                ranks_of_turns(*parts_.map, here));
  }
  report_.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count();
}

}  // namespace moerun
