#include "engine/step_timeline.h"

#include <algorithm>

#include "engine/engine.h"

namespace moerun {

void StepTimeline::sample(double now_s, const EngineStats& stats, const ExchangeSeconds& exchange) {
  const double all_to_all = std::max(exchange.all_to_all, 0.0), tensor = std::max(exchange.tensor, 0.0);
  // In the order of TimePart.
  const double counters[kNumTimeParts] = {stats.forward_s - all_to_all - tensor,
                                          all_to_all,
                                          tensor,
                                          stats.agree_s,
                                          stats.idle_s,
                                          stats.plan_s,
                                          stats.answer_s,
                                          stats.talk_s,
                                          stats.mask_s};
  for (size_t part = 0; part < kNumTimeParts; ++part) {
    // A device's clock may say a little more than the host's, which waits for it.
    sums_.add(part, sampled_s_, now_s, std::max(counters[part] - before_[part], 0.0));
    before_[part] = counters[part];
  }
  sampled_s_ = now_s;
}

}  // namespace moerun
