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

MOERUN_CLONES float sigmoid_of_dot(const float* x, const float* gate, int64_t hidden) {
  return 1.0F / (1.0F + exp_f32(-dot16(x, gate, hidden)));
}

MOERUN_CLONES void silu_row(const float* gate, const float* up, int64_t width, float* out) {
#pragma omp simd
  for (int64_t i = 0; i < width; ++i) out[i] = silu(gate[i]) * up[i];
}

}  // namespace

void rms_norm(const float* x, const float* weight, float eps, int64_t n, int64_t hidden, float* out) {
  for (int64_t row = 0; row < n; ++row) norm_row(x + row * hidden, weight, eps, hidden, out + row * hidden);
}

void add(float* residual, const float* delta, int64_t count) {
#pragma omp simd
  for (int64_t i = 0; i < count; ++i) residual[i] += delta[i];
}

void add_shared(const AddSharedArgs& args) {
  for (int64_t row = 0; row < args.n; ++row) {
    const float* const x = args.x + row * args.hidden;
    const float* const y = args.y + row * args.hidden;
    float* const sum = args.sums + row * args.hidden;
    const float factor = args.gate ? sigmoid_of_dot(x, args.gate, args.hidden) : 1.0F;
    for (int64_t i = 0; i < args.hidden; ++i) sum[i] += factor * y[i];
  }
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

}  // namespace moerun::cpu
