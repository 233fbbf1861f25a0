#pragma once
#include <string>

#include "comm/exchange_table.h"

namespace moerun {

// Which exchange the ranks of an engine get. Pure: no rank talks to another here.

/// An exchange and the reason for it, in one sentence.
struct ExchangeChoice {
  const ExchangeBackend* backend;
  std::string why;
};

/// For an engine of more than one rank. Throws BadInput when what was asked for cannot be had.
ExchangeChoice choose_exchange(Job::Parallel::AllToAll asked, const ExpertMap& experts,
                               const EngineLinks& links);

/// Whether NCCL of that version (ncclGetVersion) takes two ranks on one GPU: from 2.30.3 on, when
/// NCCL_MULTI_RANK_GPU_ENABLE, whose value is `enabled` (null: not set), is 1 (NCCL's user guide,
/// "Environment Variables").
bool nccl_takes_shared_gpus(int version, const char* enabled);

}  // namespace moerun
