#pragma once
#include <functional>
#include <span>
#include <vector>

#include "model/shard.h"
#include "model/weight_source.h"
#include "moerun/device.h"
#include "moerun/model_config.h"

namespace moerun {

/// A gated MLP's weights, or those of a layer's experts.
struct MlpWeights {
  Matrix gate_up, down;
  Tensor gate_up_bias, down_bias;  ///< [1, 2·width] and [1, hidden]; of no experts
};

/// A gated delta net's weights, but for its output projection.
struct DeltaWeights {
  Matrix qkvz, ba;        ///< [shape.width(), hidden], [2·value heads, hidden] of this rank (DeltaColumns)
  Tensor conv;            ///< [channels, conv_width]
  Tensor a_log, dt_bias;  ///< [1, value heads] float32
  Tensor norm;            ///< [1, value_dim]
};

/// One layer's weights on the device. A bias or a norm without data is absent.
struct LayerWeights {
  bool sparse = true;
  Tensor input_norm, post_attention_norm;  ///< [1, hidden]
  Matrix qkv;                              ///< [q heads | k heads | v heads of this rank, hidden]
  Tensor qkv_bias;                         ///< [1, the same]
  Tensor q_norm, k_norm;                   ///< [1, head_dim], or of all of this rank's heads
  KeyValueScale kv_scale;                  ///< of keys and values in e4m3
  DeltaWeights delta;                      ///< of a layer with a gated delta net, which has no qkv
  Matrix output;                           ///< [hidden, q heads of this rank, or value heads]
  Tensor output_bias;                      ///< [1, hidden]
  Tensor router, router_bias;              ///< [num_experts, hidden], [1, num_experts]; sparse layers
  MlpWeights mlp;                          ///< [slots] experts', or the dense layer's
  MlpWeights shared;                       ///< of the expert that every token takes
  Tensor shared_gate;                      ///< [1, hidden]
};

/// A rank's part of the model on its device.
struct Weights {
  Tensor embedding;  ///< [vocab, hidden]
  std::vector<LayerWeights> layers;
  Tensor final_norm;    ///< [1, hidden]
  Matrix lm_head;       ///< [vocab, hidden]
  Tensor lm_head_bias;  ///< [1, vocab] float32
};

/// Called with the bytes of the checkpoint that were just handed to the device.
using LoadProgress = std::function<void(uint64_t bytes)>;

/// Allocates the rank's part and fills it. Reads only those pages of the checkpoint that it needs.
Weights load_weights(Device& device, const ModelConfig& config, const ModelShard& shard,
                     const WeightSource& source, const LoadProgress& progress);

/// A slot of a layer, and the expert that goes there.
struct ExpertPlace {
  int64_t layer = 0, slot = 0;
  int32_t expert = 0;
  bool operator==(const ExpertPlace&) const = default;
};

/// Fills slots of `weights` with experts, between steps.
void load_experts(Device& device, const ModelConfig& config, const WeightSource& source, Weights& weights,
                  std::span<const ExpertPlace> places, const LoadProgress& progress);

}  // namespace moerun
