#pragma once
#include <algorithm>
#include <cstdint>

#include "engine/distinct_tokens.h"
#include "engine/scheduler.h"

namespace moerun {

/// Waiting rows that bring as many tokens to compute as some steps take, by what rows had of their own so
/// far: many where they begin alike. 0 where nothing is shared.
inline int64_t rows_that_fill_steps(const SchedulerOptions& options, const DistinctTokens& distinct) {
  // A step computes what its rows have in common, the next ones what follows it: so many that three steps
  // could be filled are enough to choose from.
  constexpr int64_t kSteps = 3, kMost = 4096;
  if (!options.share_prefixes || distinct.count() == 0) return 0;
  return std::min(kSteps * options.max_num_batched_tokens * distinct.rows() / distinct.count(), kMost);
}

/// Answers for which a leader that has `num_waiting` waiting asks for rows; none below 1.
inline int64_t rows_to_ask_for(const Scheduler& scheduler, const DistinctTokens& distinct,
                               int64_t num_waiting) {
  // A little is kept ahead of what runs; the coordinator gives everyone a fair share of what is left. Where
  // it shows only later how many may run, rows that wait here in vain could run elsewhere.
  const int64_t num_seqs = scheduler.options().num_seqs_of_any_length;
  const int64_t ahead = std::max<int64_t>(num_seqs / 4, 1);
  const int64_t room = std::max<int64_t>(num_seqs - scheduler.num_running(), 0);
  return std::max(room + ahead, rows_that_fill_steps(scheduler.options(), distinct)) - num_waiting;
}

}  // namespace moerun
