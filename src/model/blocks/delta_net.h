#pragma once
#include <string>

#include "model/config_fields.h"
#include "model/sequence_state.h"
#include "model/step.h"
#include "model/tensor_spec.h"
#include "model/weights.h"

namespace moerun {

/// A gated delta net in attention's place: projections, a causal convolution, the delta rule over a state of
/// fixed size, a gated norm of each head. Key heads are cut over the tensor-parallel ranks, each with its
/// value heads. Thread contract: the engine thread.
class DeltaNetBlock {
 public:
  /// Takes no memory where the model has no such layers.
  explicit DeltaNetBlock(const ModelParts& parts);

  /// From step.normed to the sum with the residual, normed by the layer's post-attention norm.
  void run(const Step& step, const LayerWeights& layer, const DeltaState& state);

 private:
  const ModelParts& parts_;
  Tensor qkvz_, ba_, qkv_;  // [P · tensor, …] projections, what the convolution made of them
  Tensor gates_;            // [P · tensor, 2 · value heads] float32
  Tensor heads_;            // [P · tensor, value heads · value_dim]
};

/// `layer_types` or `full_attention_interval`, and the fields named linear_…: the layers of both kinds.
void read_delta_nets(Fields& fields, ModelConfig& config);

/// Its tensors, under `prefix` ("model.layers.0.linear_attn"). Projections are as `config.delta.by_key_heads`
/// says: in_proj_qkvz and in_proj_ba, or in_proj_qkv, _z, _b and _a.
void delta_net_tensors(const ModelConfig& config, const std::string& prefix, int64_t layer, TensorList& out);

/// Keys and values of layers with attention, states of the others.
std::vector<KeptOfLayer> delta_nets_keep(const ModelConfig& config, const ModelShard& shard);

}  // namespace moerun
