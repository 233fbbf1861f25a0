#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "report/report.h"

namespace moerun {

/// Tokens that experts were given, and how evenly ranks share them. "Max over mean": the busiest rank of an
/// engine against the mean of that engine's ranks; of several engines, the worst.
struct ExpertLoad {
  std::vector<uint64_t> of_rank;                ///< over all layers
  std::vector<uint64_t> of_expert;              ///< over all layers and ranks
  std::vector<std::vector<uint64_t>> of_layer;  ///< [layers][num_experts] over all ranks
  double max_over_mean = 0;                     ///< over all layers; 0: no tokens
  std::vector<double> max_over_mean_of_layer;   ///< 0: no tokens

  double worst_layer() const;
};

/// The whole job, or its part before or after redundant experts were placed for the first time.
enum class LoadPeriod { all, before_placement, after_placement };

ExpertLoad expert_load(const JobReport& report, LoadPeriod period);

/// What the engine reports that placed its redundant experts least often.
const PlacementReport& least_placed(const JobReport& report);

/// What redundant experts made of the load.
std::string placement_sentence(const JobReport& report);

}  // namespace moerun
