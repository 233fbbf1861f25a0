#pragma once
#include <cstdint>

namespace moerun::cpu {

struct AttentionArgs {
  const float* q = nullptr;  ///< [n, heads·head_dim]
  /// [blocks, kv_heads, block_size, head_dim] floats, or with `fp8` e4m3
  const void *k_cache = nullptr, *v_cache = nullptr;
  bool fp8 = false;
  const int32_t* cu_seqlens_q = nullptr;  ///< [seqs + 1]
  const int32_t* context_lens = nullptr;  ///< [seqs]
  const int32_t* block_table = nullptr;   ///< [seqs, max_blocks]
  float* out = nullptr;                   ///< [n, heads·head_dim]
  int64_t num_seqs = 0, max_blocks = 0, heads = 0, kv_heads = 0, head_dim = 0, block_size = 0;
  float scale = 0;
  float v_scale = 1;  ///< what the sums are multiplied by
};

/// Causal attention over paged keys and values. Each query row by itself: the largest score first, then one
/// ascending sum over keys from position 0, so the bits do not depend on chunks, blocks' places or
/// neighbours.
void attention(const AttentionArgs& args);

}  // namespace moerun::cpu
