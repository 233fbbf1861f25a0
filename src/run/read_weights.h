#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "comm/mpi_env.h"

namespace moerun {

/// Every byte of a model's weights, read once.
struct WeightsRead {
  std::string fingerprint;  ///< weights_fingerprint; the same from every layout
  std::string state;        ///< state_of_files() here, from before they were read
  std::string fault;        ///< a sentence for the user: the weights cannot be read, or differ between nodes
  uint64_t bytes = 0;       ///< of the checkpoint
  int readers = 0;          ///< ranks × threads of a node that read it
  double seconds = 0;
};

/// Where a model's weights are.
std::vector<std::string> weight_files(const std::string& model_dir);

/// The ranks of each node read the whole checkpoint together, so that what a node's folder holds is known
/// whether or not nodes share it, and lies in the node's page cache when the ranks load their parts.
/// Collective over world; every rank gets the same but `state` and `seconds`. Throws nothing but what MPI
/// does.
WeightsRead read_weights(const MpiEnv& env, const std::string& model_dir);

}  // namespace moerun
