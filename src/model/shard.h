#pragma once
#include <cstdint>
#include <vector>

#include "moerun/fp8.h"
#include "moerun/model_config.h"

namespace moerun {

/// Which part of the model one rank holds. Attention heads are cut over the tensor-parallel ranks, key/value
/// heads too (or replicated when there are fewer of them), experts over all ranks of the engine. Embedding,
/// norms, router, dense layers and LM head are whole on every rank (TensorSpec::cut). Pure arithmetic.
struct ModelShard {
  int tensor = 1, tensor_rank = 0;
  std::vector<int32_t> local_experts;  ///< global ids in slot order
  std::vector<int32_t> local_slot;     ///< [num_experts] slot here, −1 when elsewhere
  int redundant_slots = 0;             ///< behind those, a layer's room for copies of other ranks' experts
  /// [num_experts, kExpertTurns] who computes an expert before copies are placed; empty: there will be none.
  std::vector<int32_t> rank_of_turn;

  int64_t num_slots() const { return static_cast<int64_t>(local_experts.size()) + redundant_slots; }
  bool is_home(int32_t expert) const { return local_slot[static_cast<size_t>(expert)] >= 0; }

  int64_t num_heads(const ModelConfig& config) const { return config.num_attention_heads / tensor; }
  int64_t first_head(const ModelConfig& config) const { return num_heads(config) * tensor_rank; }
  int64_t num_kv_heads(const ModelConfig& config) const {
    return config.num_key_value_heads >= tensor ? config.num_key_value_heads / tensor : 1;
  }
  int64_t first_kv_head(const ModelConfig& config) const {
    return first_head(config) * config.num_key_value_heads / config.num_attention_heads;
  }
  int64_t qkv_width(const ModelConfig& config) const {
    return query_width(config) + 2 * num_kv_heads(config) * config.head_dim;
  }
  /// Of the queries' projection: with gates twice as much.
  int64_t query_width(const ModelConfig& config) const {
    return num_heads(config) * config.head_dim * (config.attention_gate ? 2 : 1);
  }
  DeltaShape delta(const ModelConfig& config) const { return config.delta.of_rank(tensor); }
};

/// Parts into which the output projection's sum over heads is cut, of which each rank computes an equal share
/// (Device::linear_tree). The model alone decides it, so that the bits do not depend on `tensor`. In FP8 none
/// cuts a group of K that shares scales.
inline int32_t output_chunks(const ModelConfig& config, int64_t num_heads, int64_t head_dim) {
  constexpr int32_t kMost = 8;
  const auto divides = [&](int32_t chunks) {
    return num_heads % chunks == 0 &&
           (!config.quantization.is_fp8() || num_heads * head_dim % (chunks * kScaleGroup) == 0);
  };
  int32_t chunks = 1;
  while (chunks < kMost && divides(2 * chunks)) chunks *= 2;
  return chunks;
}
inline int32_t output_chunks(const ModelConfig& config) {
  return output_chunks(config, config.num_attention_heads, config.head_dim);
}
/// The same of a gated delta net's. A rank has whole key heads with their value heads.
inline int32_t delta_output_chunks(const ModelConfig& config) {
  return output_chunks(config, config.delta.num_value_heads, config.delta.value_dim);
}

}  // namespace moerun
