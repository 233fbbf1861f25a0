#include "model/memory_estimate.h"

#include "model/tensor_spec.h"

namespace moerun {

WeightBytes weight_bytes(const ModelConfig& config, const ModelShard& shard, DType dtype) {
  int64_t all = 0, redundant = 0, embedding = 0;
  for (const TensorSpec& spec : tensors_of(config, dtype)) {
    const TensorPart part = part_of_rank(spec, config, shard);
    const int64_t bytes = spec.format.bytes(part.rows(), part.cols());
    all += bytes;
    if (spec.place.role == Role::embedding) embedding += bytes;
    // A layer's free slots are as large as its first expert.
    if (spec.place.expert == 0) redundant += shard.redundant_slots * spec.format.bytes(spec.rows, spec.cols);
  }
  return {.all = static_cast<double>(all + redundant),
          .redundant = static_cast<double>(redundant),
          .embedding = static_cast<double>(embedding)};
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
