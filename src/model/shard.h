#pragma once
#include <cstdint>
#include <vector>

#include "moerun/model_config.h"

namespace moerun {

/// Which part of the model one rank holds. Attention heads are cut over the tensor-parallel ranks, key/value
/// heads too (or replicated when there are fewer of them), experts over all ranks of the engine. Embedding,
/// norms, router, dense layers and LM head are whole on every rank. Pure arithmetic.
struct ModelShard {
  int tensor = 1, tensor_rank = 0;
  std::vector<int32_t> local_experts;  ///< global ids in slot order
  std::vector<int32_t> local_slot;     ///< [num_experts] slot here, −1 when elsewhere
  int redundant_slots = 0;             ///< behind those, a layer's room for copies of other ranks' experts
  /// [num_experts, kExpertTurns] who computes an expert before copies are placed; empty: there will be none.
  std::vector<int32_t> rank_of_turn;

  int64_t num_slots() const { return static_cast<int64_t>(local_experts.size()) + redundant_slots; }

  int64_t num_heads(const ModelConfig& config) const { return config.num_attention_heads / tensor; }
  int64_t first_head(const ModelConfig& config) const { return num_heads(config) * tensor_rank; }
  int64_t num_kv_heads(const ModelConfig& config) const {
    return config.num_key_value_heads >= tensor ? config.num_key_value_heads / tensor : 1;
  }
  int64_t first_kv_head(const ModelConfig& config) const {
    return first_head(config) * config.num_key_value_heads / config.num_attention_heads;
  }
  int64_t qkv_width(const ModelConfig& config) const {
    return (num_heads(config) + 2 * num_kv_heads(config)) * config.head_dim;
  }
};

/// Parts into which the output projection's sum over heads is cut, of which each rank computes an equal share
/// (Device::linear_tree). The model alone decides it, so that the bits do not depend on `tensor`.
inline int32_t output_chunks(const ModelConfig& config) {
  constexpr int32_t kMost = 8;
  int32_t chunks = 1;
  while (chunks < kMost && config.num_attention_heads % (2 * chunks) == 0) chunks *= 2;
  return chunks;
}

/// Weights of one expert.
inline int64_t expert_parameters(const ModelConfig& config) {
  return 3 * config.moe_intermediate_size * config.hidden_size;
}

/// Weights of this rank's part, redundant experts not counted.
inline int64_t num_parameters(const ModelConfig& config, const ModelShard& shard) {
  const int64_t hidden = config.hidden_size;
  const int64_t heads = shard.num_heads(config) * config.head_dim;
  int64_t count = 2 * config.vocab_size * hidden + hidden;
  for (int64_t layer = 0; layer < config.num_hidden_layers; ++layer) {
    count += shard.qkv_width(config) * hidden + hidden * heads + 2 * hidden + 2 * config.head_dim;
    count += config.is_sparse(layer)
                 ? config.num_experts * hidden +
                       static_cast<int64_t>(shard.local_experts.size()) * expert_parameters(config)
                 : 3 * config.intermediate_size * hidden;
  }
  return count;
}

/// Weights that this rank has room for in redundant experts.
inline int64_t redundant_parameters(const ModelConfig& config, const ModelShard& shard) {
  int64_t count = 0;
  for (int64_t layer = 0; layer < config.num_hidden_layers; ++layer)
    if (config.is_sparse(layer)) count += shard.redundant_slots * expert_parameters(config);
  return count;
}

/// Bytes of one block of keys and values in all layers of a rank.
inline int64_t key_value_block_bytes(const ModelConfig& config, const ModelShard& shard, int64_t block_size,
                                     DType dtype) {
  return 2 * config.num_hidden_layers * shard.num_kv_heads(config) * block_size * config.head_dim *
         static_cast<int64_t>(size_of(dtype));
}

}  // namespace moerun
