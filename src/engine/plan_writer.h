#pragma once
#include <cstdint>
#include <span>

#include "engine/kv_cache.h"
#include "engine/sequence.h"
#include "moerun/plan.h"

namespace moerun {

/// What a sequence does in one step: its next `num_tokens` tokens, for which it holds blocks.
struct Scheduled {
  const Sequence* sequence = nullptr;
  int32_t num_tokens = 0;
};

/// The plan of a step: a function of what is scheduled, those that prefill first, and of what the cache moves
/// for it. LogitRow::sequence is a sequence's place in `step`, and a sequence's rows are consecutive.
StepPlan write_plan(std::span<const Scheduled> step, const KvCache& cache, const AnswerLimits& limits);

}  // namespace moerun
