#pragma once
#include <bit>
#include <cmath>
#include <cstdint>

// Loops are compiled once for each of these machines and the fastest is taken at start. The bits are the same
// in all: every operation is written out (fused multiply-add where it is fused), nothing is reassociated, and
// a vector lane does what a scalar would.
#define MOERUN_CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#define MOERUN_INLINE inline __attribute__((always_inline))

namespace moerun::cpu {

/// e^x for float32, within 2 units in the last place; the same operations in scalar and vector code. Cephes'
/// range reduction (x = n·ln 2 + r, |r| ≤ ½ ln 2) and a polynomial of degree 6 for e^r.
MOERUN_INLINE float exp_f32(float x) {
  x = x < -87.0F ? -87.0F : x > 88.0F ? 88.0F : x;
  // Adding and taking away 1.5·2^23 rounds to the nearest integer.
  const float shifted = __builtin_fmaf(x, 1.44269504F, 12582912.0F);
  const float n = shifted - 12582912.0F;
  float r = __builtin_fmaf(n, -0.693145752F, x);
  r = __builtin_fmaf(n, -1.42860677e-6F, r);
  float p = 1.0F / 720;
  p = __builtin_fmaf(p, r, 1.0F / 120);
  p = __builtin_fmaf(p, r, 1.0F / 24);
  p = __builtin_fmaf(p, r, 1.0F / 6);
  p = __builtin_fmaf(p, r, 0.5F);
  p = __builtin_fmaf(p, r, 1.0F);
  p = __builtin_fmaf(p, r, 1.0F);
  // n is in the low bits of `shifted`; so taken, a NaN has no conversion that is undefined, and stays one.
  const uint32_t scale = (std::bit_cast<uint32_t>(shifted) - std::bit_cast<uint32_t>(12582912.0F) + 127)
                         << 23;
  return p * std::bit_cast<float>(scale);
}

MOERUN_INLINE float silu(float x) { return x / (1.0F + exp_f32(-x)); }

/// The dot product of two rows in 16 interleaved sums, then a binary tree over them: one order for every
/// machine.
MOERUN_INLINE float dot16(const float* a, const float* b, int64_t n) {
  constexpr int kLanes = 16;
  float sum[kLanes] = {};
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes)
#pragma omp simd
    for (int j = 0; j < kLanes; ++j) sum[j] = __builtin_fmaf(a[i + j], b[i + j], sum[j]);
  for (int j = 0; i < n; ++i, ++j) sum[j] = __builtin_fmaf(a[i], b[i], sum[j]);
  for (int width = kLanes / 2; width > 0; width /= 2)
    for (int j = 0; j < width; ++j) sum[j] += sum[j + width];
  return sum[0];
}

}  // namespace moerun::cpu
