#pragma once
#include <string>

#include "model/sequence_state.h"
#include "model/step.h"
#include "model/tensor_spec.h"
#include "model/weights.h"

namespace moerun {

/// Grouped-query attention with rotary positions over paged keys and values. What differs between families is
/// data: `qk_norm`, `attention_bias`, the rotary tables. Thread contract: the engine thread.
class AttentionBlock {
 public:
  explicit AttentionBlock(const ModelParts& parts);

  /// From step.normed to the sum with the residual, normed by the layer's post-attention norm.
  void run(const Step& step, const LayerWeights& layer, const KvLayer& kv);

 private:
  const ModelParts& parts_;
  Tensor qkv_, q_, heads_;  // [P · tensor, …] projections, rotated queries, what the heads found
  Tensor cos_, sin_;        // [max_model_len, head_dim / 2] float32
};

/// Its tensors, under `prefix` ("model.layers.0.self_attn").
void attention_tensors(const ModelConfig& config, const std::string& prefix, int64_t layer, TensorList& out);

/// Keys and values of every layer, for a family whose layers all have this block.
std::vector<PagedKeyValues> attention_keeps(const ModelConfig& config, const ModelShard& shard);

}  // namespace moerun
