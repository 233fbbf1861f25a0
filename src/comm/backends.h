#pragma once
#include <mpi.h>

#include <memory>
#include <string>

#include "fault/progress.h"
#include "layout/topology.h"
#include "moerun/comm.h"
#include "moerun/job.h"

namespace moerun {

/// A rank's collective and exchange, and what was chosen.
struct Backends {
  std::unique_ptr<Collective> tp;
  std::unique_ptr<ExpertExchange> exchange;
  std::string all_to_all;  ///< the exchange's name
  std::string why;         ///< one sentence
};

struct BackendRequest {
  Job::Parallel::AllToAll all_to_all = Job::Parallel::AllToAll::automatic;
  MPI_Comm ep = MPI_COMM_NULL, tp = MPI_COMM_NULL;
  const ExpertMap* experts = nullptr;  ///< must outlive the exchange
  Device* device = nullptr;            ///< must outlive both
  Progress* progress = nullptr;
  int64_t part_tokens = 0;   ///< that a rank may bring to the experts in one step
  int64_t group_tokens = 0;  ///< of a data-parallel group in one step, padded to tp
  int64_t hidden_size = 0, num_experts_per_tok = 0;
  int64_t head_sums = 0;  ///< float32 values a token that a group's ranks gather (AttentionBlock); 0: none
};

/// Chooses by `all_to_all`, the number of ranks and what the device offers. Collective over ep. Throws
/// BadInput when what was asked for is not there.
Backends make_backends(const BackendRequest& request);

}  // namespace moerun
