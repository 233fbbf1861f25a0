#pragma once
#include <algorithm>
#include <cstdint>
#include <vector>

#include "moerun/plan.h"

namespace moerun {

/// What became of the logit rows that this rank computed: results[i] is that of the plan's logit row rows[i].
struct StepResult {
  std::vector<int32_t> rows;
  std::vector<TokenResult> results;
  /// The experts that the tokens of this rank's part were routed to, [tokens] of RoutedShape; empty where
  /// they are not kept.
  std::vector<uint8_t> routed;
};

/// Tokens that tensor-parallel rank `rank` of `size` holds between the layers' collectives: equal parts of
/// the step, the last ones short.
struct TokenPart {
  int64_t begin = 0, end = 0;  ///< of the step's tokens
  int64_t padded = 0;          ///< rows a rank, the same for all: collectives move this many

  int64_t count() const { return end - begin; }
};
inline TokenPart part_of_step(int64_t num_tokens, int size, int rank) {
  const int64_t padded = (num_tokens + size - 1) / size;
  const int64_t begin = std::min(padded * rank, num_tokens);
  return {begin, std::min(begin + padded, num_tokens), padded};
}

/// What an engine drives, a step at a time: a rank's share of the model. Thread contract: the engine thread.
class StepRunner {
 public:
  virtual ~StepRunner() = default;
  /// Begins one step: on a GPU its layers are enqueued and run while the caller does something else.
  /// `tokens_of_rank`: what each rank of the engine brings to the experts (this one: part_of_step of the
  /// plan). A plan without tokens takes part in the exchanges and nothing else. `plan` stays as it is until
  /// `collect`, but for its `masks`, which are looked at then.
  virtual void submit(const StepPlan& plan, const std::vector<int32_t>& tokens_of_rank) = 0;
  /// Ends the step that was begun: waits, and says what became of its logit rows. Once after each `submit`.
  virtual StepResult collect() = 0;

  StepResult forward(const StepPlan& plan, const std::vector<int32_t>& tokens_of_rank) {
    submit(plan, tokens_of_rank);
    return collect();
  }
};

}  // namespace moerun
