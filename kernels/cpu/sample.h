#pragma once
#include <cstdint>

#include "moerun/plan.h"

namespace moerun::cpu {

/// Draws or scores one row of logits [vocab], which stays as it is. Order as in vLLM: biases and penalties of
/// what bans and the mask leave, then greedy choice or temperature, top_k, top_p, min_p and a draw.
/// Log-probabilities are of the model's own logits. Ties go to the lower id throughout. Logits that are not
/// finite, and bans of all tokens, are the result's fault.
TokenResult sample(const float* logits, int64_t vocab, const LogitRow& row, const StepPlan& plan);

}  // namespace moerun::cpu
