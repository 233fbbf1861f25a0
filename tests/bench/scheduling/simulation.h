#pragma once
#include <cstdint>

#include "workloads.h"

namespace moerun::bench {

/// Of a group.
struct Room {
  int64_t num_blocks = 0, num_host_blocks = 0;
  double block_bytes = 0;
  int32_t block_size = 64;
};

struct Outcome {
  double seconds = 0;        ///< by the model, from the first step to the last answer
  double least_seconds = 0;  ///< in which no schedule could do it
  double ramp = 0;           ///< of the time, until the first answer
  double tail = 0;           ///< of the time, from when the last row had begun
  double used = 0;           ///< mean part of the room for keys and values that sequences held
  int64_t steps = 0, tokens = 0, most_running = 0;
  int64_t preemptions = 0, swaps = 0;
  int64_t computed_again = 0;  ///< tokens, of preempted sequences
  int64_t shared = 0;          ///< prompt tokens that were taken over from others
};

/// A job by the scheduler, the key/value cache, the prefix cache, pacing and forecast that ranks run, and by
/// the hand-out of the coordinator, without ranks: what a step draws is given, and its time is the model's
/// (step_cost.h). Groups are replicas: each has its own clock. Throws what the parts throw.
Outcome simulate(const Workload& workload, const Room& room);

}  // namespace moerun::bench
