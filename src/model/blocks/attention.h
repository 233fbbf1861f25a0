#pragma once
#include <string>

#include "model/sequence_state.h"
#include "model/step.h"
#include "model/tensor_spec.h"
#include "model/weights.h"

namespace moerun {

/// Grouped-query attention with rotary positions over paged keys and values. What differs between families is
/// data: `qk_norm`, gates, biases, the rotary tables and pairs. Thread contract: the engine thread.
class AttentionBlock {
 public:
  explicit AttentionBlock(const ModelParts& parts);

  /// From step.normed to the sum with the residual, normed by the layer's post-attention norm.
  void run(const Step& step, const LayerWeights& layer, const KvLayer& kv);

 private:
  /// What the whole width of queries, and of keys, is multiplied by: [n, 2]. Collective over tensor.
  Tensor scales_of(int64_t n);

  const ModelParts& parts_;
  Tensor qkv_, q_, heads_;  // [P · tensor, …] projections, rotated queries, what the heads found
  Tensor cos_, sin_;        // [max_model_len, rotated / 2] float32
  // For a norm over all heads, float32: [n, heads of this rank], the same of all ranks, [n, 2]
  Tensor squares_, all_squares_, scales_;
};

/// Float32 values a token that the tensor-parallel ranks of a group gather together for a norm over all
/// heads.
int64_t gathered_head_sums(const ModelConfig& config, const ModelShard& shard);

/// Its tensors, under `prefix` ("model.layers.0.self_attn").
void attention_tensors(const ModelConfig& config, const std::string& prefix, int64_t layer, TensorList& out);

/// Keys and values of every layer, for a family whose layers all have this block.
std::vector<KeptOfLayer> attention_keeps(const ModelConfig& config, const ModelShard& shard);

}  // namespace moerun
