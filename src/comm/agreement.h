#pragma once
#include <mpi.h>

#include <cstdint>
#include <vector>

#include "fault/progress.h"

namespace moerun {

/// What one rank of an engine brings to a step.
struct StepBid {
  int32_t num_tokens = 0;  ///< it routes in this step; zero takes part
  int32_t flags = 0;       ///< the engine's own bits: out of work, told to stop, …
};

/// The agreement that every step of an engine begins with: one small all-gather. Thread contract: the engine
/// thread.
class StepAgreement {
 public:
  explicit StepAgreement(MPI_Comm ep, Progress* progress = nullptr);

  /// Everyone's bids, by ep rank; valid until the next call. Collective.
  const std::vector<StepBid>& agree(StepBid mine);

 private:
  MPI_Comm ep_;
  Progress* progress_;
  std::vector<StepBid> bids_;  // [ep ranks]
};

}  // namespace moerun
