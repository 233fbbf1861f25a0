#pragma once
#include <string>

#include "layout/topology.h"
#include "moerun/job.h"

namespace moerun {

// Which exchange the GPUs of an engine get. Pure: no rank talks to another here.

/// What the GPUs of an engine offer to its exchanges; the same at every rank.
struct GpuLinks {
  bool shared = false;      ///< two ranks share a GPU
  bool nccl = true;         ///< none do, or NCCL takes that at every rank (it sets the limit of ranks a GPU)
  bool one_node = true;     ///< all ranks are on one
  bool peer_access = true;  ///< each GPU can address every other's memory (or is the same one)
};

/// An exchange (never `automatic`) and the reason for it, in one sentence.
struct ExchangeChoice {
  Job::Parallel::AllToAll exchange;
  std::string why;
};

/// For an engine of more than one rank. Throws BadInput when what was asked for cannot be had.
ExchangeChoice choose_exchange(Job::Parallel::AllToAll asked, const ExpertMap& experts,
                               const GpuLinks& links);

/// Whether NCCL of that version (ncclGetVersion) takes two ranks on one GPU: from 2.30.3 on, when
/// NCCL_MULTI_RANK_GPU_ENABLE, whose value is `enabled` (null: not set), is 1 (NCCL's user guide,
/// "Environment Variables").
bool nccl_takes_shared_gpus(int version, const char* enabled);

}  // namespace moerun
