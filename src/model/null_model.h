#pragma once
#include <chrono>
#include <cstdint>
#include <utility>
#include <vector>

#include "moerun/routed_shape.h"
#include "moerun/step_runner.h"

namespace moerun {

/// A model without arithmetic (`device: null`): it draws tokens from the counter-based generator keyed by
/// (seed, stream, position) and can pretend that a step takes time. For measuring and soaking everything
/// around the model. Tokens are those of a layout-independent answer, as any model's, and so are the experts
/// that it says tokens were routed to.
class NullModel : public StepRunner {
 public:
  struct Parts {
    int64_t vocab_size = 0;
    int tensor = 1, tensor_rank = 0;
    double step_ms = 0;
    RoutedShape routed;
  };
  explicit NullModel(Parts parts)
      : vocab_size_(parts.vocab_size),
        tensor_(parts.tensor),
        tensor_rank_(parts.tensor_rank),
        step_ms_(parts.step_ms),
        routed_(std::move(parts.routed)) {}

  void submit(const StepPlan& plan, const std::vector<int32_t>& tokens_of_rank) override;
  StepResult collect() override;

 private:
  std::vector<uint8_t> routed(const TokenPart& part) const;

  int64_t vocab_size_;
  int tensor_, tensor_rank_;
  double step_ms_;
  RoutedShape routed_;
  const StepPlan* plan_ = nullptr;  // of the step that was begun
  std::chrono::steady_clock::time_point ends_;
};

}  // namespace moerun
