#pragma once
#include "model/shard.h"

namespace moerun {

/// Bytes of weights of one rank.
struct WeightBytes {
  double all = 0;
  double redundant = 0;  ///< of them the room for redundant experts
  double embedding = 0;  ///< of them on the host where the device is a GPU: a step reads few of its rows
};
/// As tensors_of says, in the device's dtype.
WeightBytes weight_bytes(const ModelConfig& config, const ModelShard& shard, DType dtype);

/// What a rank that may take `gpu_bytes` of a GPU has for keys and values, beside its weights, the
/// activations of the largest step, CUDA's context and libraries; negative when the weights do not fit.
/// About: the device knows exactly when it has loaded.
double key_value_bytes_on_gpu(const ModelConfig& config, const WeightBytes& weights,
                              int64_t max_num_batched_tokens, double gpu_bytes);

}  // namespace moerun
