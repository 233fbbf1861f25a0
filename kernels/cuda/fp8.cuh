#pragma once
// Activations to e4m3, as moerun/fp8.h says: here alone, so that every kernel that quantises has the same
// bits.
#include "kernels/cuda/common.cuh"
#include "moerun/fp8.h"

namespace moerun::cuda {

/// x / scale for rounding to e4m3, where scale is that of a group with x (activation_scale): the quotient by
/// the reciprocal, brought near its correct rounding by its residual. It may be a unit of the last place off
/// and still gives the same e4m3 as the quotient rounded to nearest: values have 11 bits at most, so it is
/// near a border between two values of e4m3 in few cases, and tests/unit/fp8_test.cpp tries them all.
/// Infinite and NaN values come out as NaN.
class Fp8Divider {
 public:
  __device__ explicit Fp8Divider(float scale) : scale_(scale), reciprocal_(1.0f / scale) {}
  __device__ float operator()(float x) const {
    const float quotient = x * reciprocal_;
    return fmaf(fmaf(-scale_, quotient, x), reciprocal_, quotient);
  }

 private:
  float scale_, reciprocal_;
};

/// Two values to e4m3, the first in the lower byte: to nearest even, saturating.
__device__ __forceinline__ uint32_t pack_e4m3(float lo, float hi) {
  uint16_t bits;
  asm("cvt.rn.satfinite.e4m3x2.f32 %0, %1, %2;" : "=h"(bits) : "f"(hi), "f"(lo));
  return bits;
}
__device__ __forceinline__ uint32_t pack_e4m3(float v0, float v1, float v2, float v3) {
  return pack_e4m3(v0, v1) | pack_e4m3(v2, v3) << 16;
}

/// The largest magnitude among kLanes lanes side by side; a NaN counts as nothing.
template <int kLanes>
__device__ __forceinline__ float amax_of_lanes(float amax) {
#pragma unroll
  for (int d = kLanes / 2; d > 0; d /= 2) amax = fmaxf(amax, __shfl_xor_sync(kFullMask, amax, d));
  return amax;
}

}  // namespace moerun::cuda
