#pragma once
#include <chrono>
#include <cstdint>

#include "moerun/step_runner.h"

namespace moerun {

/// A model without arithmetic (`device: null`): it draws tokens from the counter-based generator keyed by
/// (seed, stream, position) and can pretend that a step takes time. For measuring and soaking everything
/// around the model. Tokens are those of a layout-independent answer, as any model's.
class NullModel : public StepRunner {
 public:
  NullModel(int64_t vocab_size, int tensor, int tensor_rank, double step_ms)
      : vocab_size_(vocab_size), tensor_(tensor), tensor_rank_(tensor_rank), step_ms_(step_ms) {}

  void submit(const StepPlan& plan, const std::vector<int32_t>& tokens_of_rank) override;
  StepResult collect() override;

 private:
  int64_t vocab_size_;
  int tensor_, tensor_rank_;
  double step_ms_;
  const StepPlan* plan_ = nullptr;  // of the step that was begun
  std::chrono::steady_clock::time_point ends_;
};

}  // namespace moerun
