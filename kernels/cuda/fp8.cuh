#pragma once
// Activations to e4m3, as moerun/fp8.h says: here alone, so that every kernel that quantises has the same
// bits.
#include "kernels/cuda/common.cuh"
#include "moerun/fp8.h"

namespace moerun::cuda {

/// Divides by one scale: float32 quotients, rounded to nearest. By Markstein's theorem a residual gives a
/// quotient within one unit of the last place its correct rounding, where the reciprocal is rounded
/// correctly; activation_scale keeps both far from underflow. Infinite and NaN values come out as NaN.
class Fp8Divider {
 public:
  __device__ explicit Fp8Divider(float scale) : scale_(scale), reciprocal_(1.0f / scale) {}
  __device__ float operator()(float x) const { return improved(x, improved(x, x * reciprocal_)); }

 private:
  __device__ float improved(float x, float quotient) const {
    return fmaf(fmaf(-scale_, quotient, x), reciprocal_, quotient);
  }
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
