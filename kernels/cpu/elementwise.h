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

struct AddSharedArgs {
  const float *y = nullptr, *x = nullptr;  ///< [n, hidden]
  const float* gate = nullptr;             ///< [hidden]; null: y counts once
  float* sums = nullptr;                   ///< [n, hidden] in and out
  int64_t n = 0, hidden = 0;
};

/// sums += σ(x·gate)·y. The dot product is dot16's.
void add_shared(const AddSharedArgs& args);

}  // namespace moerun::cpu
