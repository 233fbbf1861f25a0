#pragma once
#include <cstdint>

namespace moerun::cpu {

/// out = x · rsqrt(mean(x²) + eps) · weight, rows [n, hidden]. The sum of squares is dot16's.
void rms_norm(const float* x, const float* weight, float eps, int64_t n, int64_t hidden, float* out);

/// residual += delta.
void add(float* residual, const float* delta, int64_t count);

/// out = silu(gate)·up of [gate | up] rows [n, 2·width].
void silu_mul(const float* gate_up, int64_t n, int64_t width, float* out);

/// out[i] = binary tree over s of shards[s·count + i].
void tree_sum(const float* shards, int64_t num_shards, int64_t count, float* out);

struct RopeCacheArgs {
  const float* qkv = nullptr;                                   ///< [n, (heads + 2·kv_heads)·head_dim]
  const float *q_norm = nullptr, *k_norm = nullptr;             ///< [head_dim]; null: no norm
  const float *cos = nullptr, *sin = nullptr;                   ///< [positions, head_dim / 2]
  const int32_t *positions = nullptr, *slot_mapping = nullptr;  ///< [n]
  float* q = nullptr;                                           ///< [n, heads·head_dim]
  float *k_cache = nullptr, *v_cache = nullptr;                 ///< [blocks, kv_heads, block_size, head_dim]
  int64_t n = 0, heads = 0, kv_heads = 0, head_dim = 0, block_size = 0;
  float eps = 0;
};

/// Per-head RMSNorm of queries and keys where there are weights, then rotation of (i, i + head_dim/2) pairs
/// (Hugging Face `rotate_half`), then keys and values to their slots.
void rope_cache(const RopeCacheArgs& args);

}  // namespace moerun::cpu
