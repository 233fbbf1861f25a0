#pragma once
#include <cstdint>
#include <span>

#include "engine/kv_cache.h"
#include "engine/sequence.h"
#include "engine/state_slots.h"
#include "moerun/plan.h"

namespace moerun {

/// What a sequence does in one step: its next `num_tokens` tokens, for which it holds blocks.
struct Scheduled {
  const Sequence* sequence = nullptr;
  int32_t num_tokens = 0;
  /// Where its answer's next token is drawn: of so many of the row's answers, this one's and those after it.
  int32_t num_draws = 1;
};

/// A token that another prompt goes on with where it leaves a scheduled one: it is scored too, for that
/// prompt.
struct Branch {
  size_t of = 0;         ///< place of the scheduled sequence
  int32_t position = 0;  ///< of the token; the one before it is scheduled
  int32_t token = 0;
};

/// What is kept of sequences, and moves before the step.
struct KeptOfSequences {
  const KvCache* cache = nullptr;
  const StateSlots* states = nullptr;  ///< may be null
  std::vector<int32_t> state_saves;    ///< StepPlan::state_saves
};

/// The plan of a step: a function of what is scheduled, those that prefill first, and of what the cache moves
/// for it. LogitRow::sequence is a sequence's place in `step`, and a sequence's rows are consecutive; the
/// branches' rows follow after all of those, as if they were sequences more.
StepPlan write_plan(std::span<const Scheduled> step, std::span<const Branch> branches, KeptOfSequences kept,
                    const AnswerLimits& limits);

}  // namespace moerun
