#include "job/answer_key.h"

#include "moerun/wire.h"

namespace moerun {

std::optional<std::string> answer_key(const SamplingParams& sampling) {
  const bool draws = sampling.max_tokens > 0 && sampling.draw.temperature >= kGreedyTemperature;
  if (draws && !sampling.own_seed) return std::nullopt;
  SamplingParams deciding = sampling;
  if (!draws) {  // nothing of this shows in the most likely token, nor in scores
    const DrawParams none;
    DrawParams& draw = deciding.draw;
    deciding.own_seed = false;
    draw.seed = none.seed;
    draw.temperature = none.temperature;
    draw.top_p = none.top_p;
    draw.top_k = none.top_k;
    draw.min_p = none.min_p;
  }
  WireWriter key;
  SamplingParams::each(deciding, [&](const auto& value) { key.put(value); });
  return key.take();
}

}  // namespace moerun
