// Products of 16 × 8 tiles in tf32, as delta_rule.cu takes them: sums of one are an operand of the next.
#pragma once
#include "kernels/cuda/delta_net.cuh"
#include "kernels/cuda/hopper.cuh"

namespace moerun::cuda {

using Tile = float[4];  // a lane's of 16 × 8: (g, 2t), (g, 2t + 1), (g + 8, 2t), (g + 8, 2t + 1)

__device__ __forceinline__ float tf32(float x) {
  uint32_t rounded;
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(rounded) : "f"(x));
  return __uint_as_float(rounded);
}

/// d [16, 8] += a [16, 8] · b [8, 8], with b's rows 2t and 2t + 1 in place t and t + 4.
__device__ __forceinline__ void multiply(Tile& d, const Tile& a, float b0, float b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
      "{%0,%1,%2,%3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(__float_as_uint(a[0])), "r"(__float_as_uint(a[2])), "r"(__float_as_uint(a[1])),
        "r"(__float_as_uint(a[3])), "r"(__float_as_uint(b0)), "r"(__float_as_uint(b1)));
}

/// Columns change places by position, so that neither eight positions' pairs of columns nor four pairs of
/// positions' eight columns meet in a bank.
__device__ __forceinline__ int key_at(int position, int column) {
  return position * kMaxDeltaDim + (column ^ (((position & 3) ^ (position >> 2 & 1)) << 3));
}
__device__ __forceinline__ float2 pair_at(const float* p) { return *reinterpret_cast<const float2*>(p); }

__device__ __forceinline__ uint32_t transposed_8x8(uint32_t m) {
  uint32_t out;
  asm volatile("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(out) : "r"(m));
  return out;
}

template <class T>
__device__ __forceinline__ float4 load4(const T* from, bool valid) {
  if (!valid) return float4{};
  const uint2 bits = *reinterpret_cast<const uint2*>(from);
  const float2 low = unpack_floats<T>(bits.x), high = unpack_floats<T>(bits.y);
  return make_float4(low.x, low.y, high.x, high.y);
}

}  // namespace moerun::cuda
