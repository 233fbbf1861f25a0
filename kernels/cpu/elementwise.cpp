#include "kernels/cpu/elementwise.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/cpu/simd.h"

namespace moerun::cpu {

namespace {

MOERUN_CLONES void norm_row(const float* x, const float* weight, float eps, int64_t hidden, float* out) {
  const float scale = 1.0F / std::sqrt(dot16(x, x, hidden) / static_cast<float>(hidden) + eps);
#pragma omp simd
  for (int64_t i = 0; i < hidden; ++i) out[i] = x[i] * scale * weight[i];
}

MOERUN_CLONES void silu_row(const float* gate, const float* up, int64_t width, float* out) {
#pragma omp simd
  for (int64_t i = 0; i < width; ++i) out[i] = silu(gate[i]) * up[i];
}

/// Norm (where there is a weight) and rotation of one head's vector, in place of `out`.
void norm_and_rotate(const float* x, const float* weight, const float* cos, const float* sin, float eps,
                     int64_t head_dim, float* out) {
  if (weight)
    norm_row(x, weight, eps, head_dim, out);
  else
    std::copy_n(x, head_dim, out);
  const int64_t half = head_dim / 2;
  for (int64_t i = 0; i < half; ++i) {
    const float a = out[i], b = out[i + half];
    out[i] = a * cos[i] - b * sin[i];
    out[i + half] = b * cos[i] + a * sin[i];
  }
}

}  // namespace

void rms_norm(const float* x, const float* weight, float eps, int64_t n, int64_t hidden, float* out) {
  for (int64_t row = 0; row < n; ++row) norm_row(x + row * hidden, weight, eps, hidden, out + row * hidden);
}

void add(float* residual, const float* delta, int64_t count) {
#pragma omp simd
  for (int64_t i = 0; i < count; ++i) residual[i] += delta[i];
}

void silu_mul(const float* gate_up, int64_t n, int64_t width, float* out) {
  for (int64_t row = 0; row < n; ++row)
    silu_row(gate_up + row * 2 * width, gate_up + row * 2 * width + width, width, out + row * width);
}

void tree_sum(const float* shards, int64_t num_shards, int64_t count, float* out) {
  std::vector<float> level(shards, shards + num_shards * count);
  for (int64_t left = num_shards; left > 1; left /= 2)
    for (int64_t s = 0; s < left / 2; ++s)
      for (int64_t i = 0; i < count; ++i)
        level[static_cast<size_t>(s * count + i)] = level[static_cast<size_t>(2 * s * count + i)] +
                                                    level[static_cast<size_t>((2 * s + 1) * count + i)];
  std::copy_n(level.begin(), count, out);
}

void rope_cache(const RopeCacheArgs& args) {
  const int64_t d = args.head_dim, half = d / 2, width = (args.heads + 2 * args.kv_heads) * d;
  for (int64_t token = 0; token < args.n; ++token) {
    const float* const row = args.qkv + token * width;
    const float* const cos = args.cos + args.positions[token] * half;
    const float* const sin = args.sin + args.positions[token] * half;
    for (int64_t head = 0; head < args.heads; ++head)
      norm_and_rotate(row + head * d, args.q_norm, cos, sin, args.eps, d,
                      args.q + (token * args.heads + head) * d);
    const int64_t block = args.slot_mapping[token] / args.block_size,
                  offset = args.slot_mapping[token] % args.block_size;
    for (int64_t head = 0; head < args.kv_heads; ++head) {
      const int64_t place = ((block * args.kv_heads + head) * args.block_size + offset) * d;
      norm_and_rotate(row + (args.heads + head) * d, args.k_norm, cos, sin, args.eps, d,
                      args.k_cache + place);
      std::copy_n(row + (args.heads + args.kv_heads + head) * d, d, args.v_cache + place);
    }
  }
}

}  // namespace moerun::cpu
