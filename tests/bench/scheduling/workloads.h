#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "moerun/record.h"

namespace moerun::bench {

/// A job's rows and what their answers will be. The same for the same seed, with every standard library.
struct Workload {
  std::string name, what;
  int32_t num_groups = 1;  ///< data-parallel groups, each with a GPU's memory
  bool share_prefixes = false;
  bool ends_by_token = false;  ///< answers end by an end-of-sequence token that nobody sees coming
  std::vector<PromptRecord> rows;
  std::vector<std::vector<int32_t>> answers;  ///< [row][answer] tokens
};

/// The ten, in the order of their table.
std::vector<Workload> all_workloads(uint64_t seed);

}  // namespace moerun::bench
