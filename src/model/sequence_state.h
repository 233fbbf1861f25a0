#pragma once
#include <cstdint>
#include <vector>

#include "model/shard.h"

namespace moerun {

/// What a layer keeps of a sequence on a rank: keys and values in blocks of tokens. Block bytes, the cache,
/// what is swapped and the memory estimate follow from it.
struct PagedKeyValues {
  int64_t num_kv_heads = 0, head_dim = 0;

  /// Of the keys, and of the values, of one block: each [num_kv_heads, block_size, head_dim].
  int64_t block_rows(int64_t block_size) const { return num_kv_heads * block_size; }
  int64_t block_bytes(int64_t block_size, DType dtype) const {
    return 2 * block_rows(block_size) * head_dim * static_cast<int64_t>(size_of(dtype));
  }
};

/// [layers] of a rank.
std::vector<PagedKeyValues> kept_of_sequence(const ModelConfig& config, const ModelShard& shard);

/// Bytes of one block in all layers of a rank.
int64_t key_value_block_bytes(const ModelConfig& config, const ModelShard& shard, int64_t block_size,
                              DType dtype);

}  // namespace moerun
