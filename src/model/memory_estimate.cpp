#include "model/memory_estimate.h"

namespace moerun {

WeightBytes weight_bytes(const ModelConfig& config, const ModelShard& shard, DType dtype) {
  const auto element = static_cast<double>(size_of(dtype));
  const double redundant = static_cast<double>(redundant_parameters(config, shard)) * element;
  return {.all = static_cast<double>(num_parameters(config, shard)) * element + redundant,
          .redundant = redundant,
          .embedding = static_cast<double>(config.vocab_size * config.hidden_size) * element};
}

double key_value_bytes_on_gpu(const ModelConfig& config, const WeightBytes& weights,
                              int64_t max_num_batched_tokens, double gpu_bytes) {
  constexpr double kContextAndLibraries = 1.2 * (1 << 30);
  // Rows of 16-bit elements: about three for each expert of a token, and a dozen more.
  const double step = static_cast<double>(max_num_batched_tokens * config.hidden_size) *
                      (static_cast<double>(config.num_experts_per_tok) * 3 + 12) * 2;
  return gpu_bytes - (weights.all - weights.embedding) - kContextAndLibraries - step;
}

}  // namespace moerun
