#pragma once
#include <cstdint>
#include <variant>
#include <vector>

#include "model/shard.h"

namespace moerun {

/// Keys and values in blocks of tokens.
struct PagedKeyValues {
  int64_t num_kv_heads = 0, head_dim = 0;

  /// Of the keys, and of the values, of one block: each [num_kv_heads, block_size, head_dim].
  int64_t block_rows(int64_t block_size) const { return num_kv_heads * block_size; }
  int64_t block_bytes(int64_t block_size, DType dtype) const {
    return 2 * block_rows(block_size) * head_dim * static_cast<int64_t>(size_of(dtype));
  }
};

/// A gated delta net's state, of one size however long the sequence is: DeltaState's, in a slot.
struct FixedState {
  DeltaShape shape;  ///< of the rank

  /// `dtype`: that of activations, in which the convolution's inputs are.
  int64_t bytes(DType dtype) const {
    return (shape.conv_width - 1) * shape.channels() * static_cast<int64_t>(size_of(dtype)) +
           shape.num_value_heads * shape.key_dim * shape.value_dim * 4;
  }
};

/// What a layer keeps of a sequence on a rank. Block and slot bytes, the cache, what is swapped and the
/// memory estimate follow from it.
using KeptOfLayer = std::variant<PagedKeyValues, FixedState>;

/// [layers] of a rank.
std::vector<KeptOfLayer> kept_of_sequence(const ModelConfig& config, const ModelShard& shard);

/// Bytes of one block in all layers of a rank.
int64_t key_value_block_bytes(const ModelConfig& config, const ModelShard& shard, int64_t block_size,
                              DType dtype);

/// Bytes of one slot in all layers of a rank; 0: no layer keeps a state.
int64_t state_slot_bytes(const ModelConfig& config, const ModelShard& shard, DType dtype);

}  // namespace moerun
