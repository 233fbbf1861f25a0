#pragma once
// What the attention kernels share: head sizes, places in the paged cache.
#include "kernels/cuda/common.cuh"
#include "kernels/cuda/limits.h"
#include "moerun/device.h"

namespace moerun::cuda {

/// The row of head_dim elements that holds (slot `offset` of `block`, head) of the cache.
__device__ __forceinline__ int64_t cache_row(const KvLayer& kv, int32_t block, int32_t offset, int32_t head) {
  return (static_cast<int64_t>(block) * kv.num_kv_heads + head) * kv.block_size + offset;
}

/// 2^x; 0 for −∞, exactly 1 for 0.
__device__ __forceinline__ float exp2_approx(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

constexpr float kLog2E = 1.4426950408889634F;

/// Calls f with the element type and the head size: `f.operator()<T, kDim>()`.
template <class F>
void with_head(DType dtype, int32_t head_dim, F&& f) {
  static_assert(limits::kHeadDims == std::array<int32_t, 3>{64, 128, 256});
  if (head_dim != 64 && head_dim != 128 && head_dim != 256)
    throw Error("attention on the GPU takes head sizes of 64, 128 and 256, not " + std::to_string(head_dim));
  with_element(dtype, [&]<class T>(T) {
    if (head_dim == 64)
      f.template operator()<T, 64>();
    else if (head_dim == 128)
      f.template operator()<T, 128>();
    else
      f.template operator()<T, 256>();
  });
}

}  // namespace moerun::cuda
