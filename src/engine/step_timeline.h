#pragma once
#include "base/binned_sums.h"

namespace moerun {

struct EngineStats;

/// Seconds that a rank has spent in exchanges so far, within its steps; −1: not measured.
struct ExchangeSeconds {
  double all_to_all = -1, tensor = -1;
};

/// What a rank's time goes into; all of it is the host's, and none of it lies within another.
enum class TimePart : uint8_t {
  model,       ///< steps without their exchanges, where those are measured; redundant experts' loads
  all_to_all,  ///< dispatch and combine
  tensor,      ///< the collectives of the tensor-parallel ranks
  agreement,   ///< how many tokens each rank brings: waiting for the slowest
  idle,        ///< without work anywhere
  plan,        ///< a leader's plans, while the device waits
  answer,      ///< a leader's taking in of results, while the device waits
  talk,        ///< a leader's rows and answers, while the device computes
  mask,        ///< a leader's saying which tokens rows can choose, while the device computes
};
inline constexpr size_t kNumTimeParts = 9;
/// As the JSON report calls them, in that order.
inline constexpr const char* kTimeParts[kNumTimeParts] = {"model_s",     "all_to_all_s", "tensor_parallel_s",
                                                          "agreement_s", "idle_s",       "plan_s",
                                                          "answer_s",    "talk_s",       "mask_s"};

/// Where a rank's time went, over the time of its loop. Thread contract: the engine thread.
class StepTimeline {
 public:
  static constexpr size_t kMostBins = 128;
  static constexpr double kFirstBin_s = 0.1;

  StepTimeline() : sums_(kNumTimeParts, kMostBins, kFirstBin_s) {}

  /// Whether a bin's time has passed since the last sample.
  bool due(double now_s) const { return now_s - sampled_s_ >= sums_.bin_s(); }
  /// What was spent since the last sample, by counters that only grow.
  void sample(double now_s, const EngineStats& stats, const ExchangeSeconds& exchange);

  const BinnedSums& sums() const { return sums_; }

 private:
  BinnedSums sums_;
  double sampled_s_ = 0;
  double before_[kNumTimeParts] = {};  // the counters at the last sample
};

}  // namespace moerun
