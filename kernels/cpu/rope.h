#pragma once
#include <cstdint>

namespace moerun::cpu {

struct RopeCacheArgs {
  const float* qkv = nullptr;  ///< [n, (heads + 2·kv_heads)·head_dim], with `gated` (2·heads + 2·kv_heads)·…
  bool gated = false;          ///< behind each query head is as much that is none of it
  const float *q_norm = nullptr,
              *k_norm = nullptr;               ///< [head_dim], with scales [heads·head_dim]; null: no norm
  const float* scales = nullptr;               ///< [n, 2] of qk_scales; null: each head has its own
  const float *cos = nullptr, *sin = nullptr;  ///< [positions, rotated / 2]
  const int32_t *positions = nullptr, *slot_mapping = nullptr;  ///< [n]
  float* q = nullptr;                                           ///< [n, heads·head_dim]
  /// [blocks, kv_heads, block_size, head_dim] floats, or with `fp8` e4m3
  void *k_cache = nullptr, *v_cache = nullptr;
  bool fp8 = false;
  float k_scale = 1, v_scale = 1;  ///< keys and values are divided by these before they are written
  int64_t n = 0, heads = 0, kv_heads = 0, head_dim = 0, block_size = 0;
  int64_t rotated = 0;       ///< elements of a head, the first ones
  bool interleaved = false;  ///< pairs (2i, 2i + 1), not (i, i + rotated/2)
  float eps = 0;
};

/// RMSNorm of queries and keys where there are weights, then rotation of pairs (Hugging Face `rotate_half`),
/// then keys and values to their slots.
void rope_cache(const RopeCacheArgs& args);

/// out [n, heads]: the sums of squares of the first `heads` heads of rows of `width` elements. Each is
/// dot16's.
void head_squares(const float* rows, int64_t n, int64_t width, int64_t heads, int64_t head_dim, float* out);

struct QkScalesArgs {
  const float* squares = nullptr;  ///< [tensor·n, heads/tensor + kv_heads of a rank]
  int64_t n = 0, tensor = 1, heads = 0, kv_heads = 0, head_dim = 0;
  float eps = 0;
  float* out = nullptr;  ///< [n, 2]
};

/// 1/√(mean + eps) over all query heads, and over all key heads, summed in ascending order of heads.
void qk_scales(const QkScalesArgs& args);

}  // namespace moerun::cpu
