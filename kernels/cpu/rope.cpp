#include "kernels/cpu/rope.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/cpu/elementwise.h"
#include "kernels/cpu/simd.h"
#include "moerun/half.h"

namespace moerun::cpu {

namespace {

MOERUN_CLONES float sum_of_squares(const float* x, int64_t n) { return dot16(x, x, n); }

/// One head's vector, normed into `out`: by itself, or by the scale of all heads.
void norm_head(const float* x, const float* weight, const float* scale, float eps, int64_t head_dim,
               float* out) {
  if (!weight)
    std::copy_n(x, head_dim, out);
  else if (scale)
    for (int64_t i = 0; i < head_dim; ++i) out[i] = x[i] * *scale * weight[i];
  else
    rms_norm(x, weight, eps, 1, head_dim, out);
}

void rotate(float* head, const float* cos, const float* sin, int64_t rotated, bool interleaved) {
  const int64_t half = rotated / 2, apart = interleaved ? 1 : half, step = interleaved ? 2 : 1;
  for (int64_t i = 0; i < half; ++i) {
    float* const first = head + i * step;
    const float a = *first, b = first[apart];
    *first = a * cos[i] - b * sin[i];
    first[apart] = b * cos[i] + a * sin[i];
  }
}

}  // namespace

void rope_cache(const RopeCacheArgs& args) {
  const DType cache = args.fp8 ? DType::e4m3 : DType::float32;
  std::vector<float> key(static_cast<size_t>(args.head_dim));
  const int64_t d = args.head_dim, half = args.rotated / 2, apart = args.gated ? 2 : 1;
  const int64_t before_keys = args.heads * apart, width = (before_keys + 2 * args.kv_heads) * d;
  for (int64_t token = 0; token < args.n; ++token) {
    const float* const row = args.qkv + token * width;
    const float* const cos = args.cos + args.positions[token] * half;
    const float* const sin = args.sin + args.positions[token] * half;
    const float* const scales = args.scales ? args.scales + token * 2 : nullptr;
    const auto head = [&](int64_t of_row, const float* weights, int64_t index, const float* scale,
                          float* out) {
      const float* const weight = weights && scale ? weights + index * d : weights;
      norm_head(row + of_row * d, weight, scale, args.eps, d, out);
      rotate(out, cos, sin, args.rotated, args.interleaved);
    };
    for (int64_t i = 0; i < args.heads; ++i)
      head(i * apart, args.q_norm, i, scales, args.q + (token * args.heads + i) * d);
    const int64_t block = args.slot_mapping[token] / args.block_size,
                  offset = args.slot_mapping[token] % args.block_size;
    for (int64_t i = 0; i < args.kv_heads; ++i) {
      const int64_t place = ((block * args.kv_heads + i) * args.block_size + offset) * d;
      const float* const value = row + (before_keys + args.kv_heads + i) * d;
      head(before_keys + i, args.k_norm, i, scales ? scales + 1 : nullptr, key.data());
      for (int64_t j = 0; j < d; ++j) {
        store_float(args.k_cache, cache, place + j, key[static_cast<size_t>(j)] / args.k_scale);
        store_float(args.v_cache, cache, place + j, value[j] / args.v_scale);
      }
    }
  }
}

void head_squares(const float* rows, int64_t n, int64_t width, int64_t heads, int64_t head_dim, float* out) {
  for (int64_t row = 0; row < n; ++row)
    for (int64_t head = 0; head < heads; ++head)
      out[row * heads + head] = sum_of_squares(rows + row * width + head * head_dim, head_dim);
}

void qk_scales(const QkScalesArgs& args) {
  const int64_t q_heads = args.heads / args.tensor,
                k_heads = std::max<int64_t>(args.kv_heads / args.tensor, 1), cols = q_heads + k_heads;
  const auto scale = [&](int64_t token, int64_t heads, int64_t first_col) {
    float sum = 0;
    for (int64_t head = 0; head < heads; ++head) {
      const int64_t rank = head * args.tensor / heads;  // the first that has it
      const int64_t first_head = rank * heads / args.tensor;
      sum += args.squares[(rank * args.n + token) * cols + first_col + head - first_head];
    }
    return 1.0F / std::sqrt(sum / static_cast<float>(heads * args.head_dim) + args.eps);
  };
  for (int64_t token = 0; token < args.n; ++token) {
    args.out[token * 2] = scale(token, args.heads, 0);
    args.out[token * 2 + 1] = scale(token, args.kv_heads, q_heads);
  }
}

}  // namespace moerun::cpu
