#include "run/redundant_experts.h"

#include <algorithm>
#include <chrono>
#include <functional>
#include <numeric>
#include <utility>

#include "comm/mpi_env.h"
#include "layout/expert_copies.h"

namespace moerun {

RedundantExperts::RedundantExperts(Parts parts) : parts_(std::move(parts)) {
  MPI_CHECK(MPI_Comm_rank(parts_.ep, &rank_));
}

void RedundantExperts::submit(const StepPlan& plan, const std::vector<int32_t>& tokens_of_rank) {
  if (routed_tokens_ >= next_tokens_) {
    const auto began = std::chrono::steady_clock::now();
    place();
    next_tokens_ = 2 * routed_tokens_;
    report_.seconds += std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count();
  }
  routed_tokens_ = std::accumulate(tokens_of_rank.begin(), tokens_of_rank.end(), routed_tokens_);
  parts_.model->submit(plan, tokens_of_rank);
}

void RedundantExperts::place() {
  const std::vector<uint64_t> now = parts_.model->experts().expert_tokens();
  std::vector<uint64_t> tokens = now;
  if (report_.placements++ == 0) {
    report_.counted_tokens = routed_tokens_;
    report_.expert_tokens = now;
  } else {
    std::transform(now.begin(), now.end(), counted_.begin(), tokens.begin(), std::minus<>());
  }
  counted_ = now;
  {
    const Waiting waiting(parts_.progress);
    MPI_CHECK(MPI_Allreduce(MPI_IN_PLACE, tokens.data(), static_cast<int>(tokens.size()), MPI_UINT64_T,
                            MPI_SUM, parts_.ep));
  }

  const auto num_experts = static_cast<size_t>(parts_.map->num_experts());
  std::vector<std::vector<ExpertCopy>> copies;  // [layers]
  std::vector<ExpertPlace> places, to_load;
  report_.copies.clear();
  for (size_t layer = 0; layer * num_experts < tokens.size(); ++layer) {
    const std::span of_layer(tokens.data() + layer * num_experts, num_experts);
    for (const ExpertCopy& copy : copies.emplace_back(place_copies(*parts_.map, of_layer))) {
      if (copy.rank != rank_) continue;
      places.push_back({.layer = static_cast<int64_t>(layer), .slot = copy.slot, .expert = copy.expert});
      if (std::find(held_.begin(), held_.end(), places.back()) == held_.end())
        to_load.push_back(places.back());
      report_.copies.push_back({.layer = static_cast<int32_t>(layer),
                                .expert = copy.expert,
                                .share = static_cast<double>(copy.turns) / kExpertTurns});
    }
  }
  parts_.load(to_load);
  report_.loads += static_cast<int64_t>(to_load.size());
  held_ = std::move(places);
  for (size_t layer = 0; layer < copies.size(); ++layer)
    parts_.model->experts().place(static_cast<int64_t>(layer),
                                  slots_with_copies(*parts_.map, copies[layer], rank_),
                                  ranks_of_turns(*parts_.map, copies[layer]));
}

}  // namespace moerun
