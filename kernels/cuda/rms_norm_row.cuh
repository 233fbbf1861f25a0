#pragma once
// RMSNorm of a row that a block holds in registers: the order of the row's sum is here alone, so that every
// kernel that normalises has the same bits.
#include <algorithm>

#include "kernels/cuda/common.cuh"

namespace moerun::cuda {

constexpr int kNormVector = 8;  // elements of 16 bytes
constexpr int kMaxNormThreads = 1024;

/// Threads of the block of a row of `cols` elements. Thread t holds its vectors t + j · threads.
inline int norm_threads(int32_t cols) {
  return std::min(round_up(cols / kNormVector, kWarpSize), kMaxNormThreads);
}

template <class T>
__device__ __forceinline__ void unpack(uint4 bits, float (&v)[kNormVector]) {
  const uint32_t words[4] = {bits.x, bits.y, bits.z, bits.w};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const float2 pair = unpack_floats<T>(words[i]);
    v[2 * i] = pair.x;
    v[2 * i + 1] = pair.y;
  }
}

template <class T>
__device__ __forceinline__ uint4 pack(const float (&v)[kNormVector]) {
  return make_uint4(pack_floats<T>(v[0], v[1]), pack_floats<T>(v[2], v[3]), pack_floats<T>(v[4], v[5]),
                    pack_floats<T>(v[6], v[7]));
}

/// The sum over the block's threads, the same in each: a butterfly in each warp, then over the warps.
__device__ __forceinline__ float block_sum(float value) {
  __shared__ float of_warp[kMaxNormThreads / kWarpSize];
  for (int d = kWarpSize / 2; d > 0; d /= 2) value += __shfl_xor_sync(kFullMask, value, d);
  if (threadIdx.x % kWarpSize == 0) of_warp[threadIdx.x / kWarpSize] = value;
  __syncthreads();
  value = threadIdx.x % kWarpSize < blockDim.x / kWarpSize ? of_warp[threadIdx.x % kWarpSize] : 0;
  for (int d = kWarpSize / 2; d > 0; d /= 2) value += __shfl_xor_sync(kFullMask, value, d);
  return value;
}

/// squares + the squares of eight elements, one after the other.
template <class T>
__device__ __forceinline__ float add_squares(uint4 bits, float squares) {
  float v[kNormVector];
  unpack<T>(bits, v);
#pragma unroll
  for (int e = 0; e < kNormVector; ++e) squares = fmaf(v[e], v[e], squares);
  return squares;
}

/// out = row · rsqrt(mean(row²) + eps), rounded to T, times weight, rounded. By all norm_threads(cols)
/// threads of the block, once a block; each gives its vectors of row and weight, and `squares`: add_squares
/// of its vectors in ascending order.
template <class T, int kVectors>
__device__ __forceinline__ void write_normed(const uint4 (&row)[kVectors], const uint4 (&weight)[kVectors],
                                             float squares, int32_t cols, float eps, uint4* out) {
  const float scale = rsqrtf(block_sum(squares) / static_cast<float>(cols) + eps);
#pragma unroll
  for (int j = 0; j < kVectors; ++j) {
    const int32_t i = threadIdx.x + j * blockDim.x;
    if (i >= cols / kNormVector) continue;
    float v[kNormVector], factor[kNormVector];
    unpack<T>(row[j], v);
    unpack<T>(weight[j], factor);
#pragma unroll
    for (int e = 0; e < kNormVector; ++e) v[e] *= scale;
    unpack<T>(pack<T>(v), v);
#pragma unroll
    for (int e = 0; e < kNormVector; ++e) v[e] *= factor[e];
    out[i] = pack<T>(v);
  }
}

/// The same with weights in float32, [cols]: rounded once (Hugging Face `Qwen3NextRMSNorm`, whose weight is
/// one more than what is stored, which 16 bits do not hold).
template <class T, int kVectors>
__device__ __forceinline__ void write_normed(const uint4 (&row)[kVectors], const float* weight, float squares,
                                             int32_t cols, float eps, uint4* out) {
  const float scale = rsqrtf(block_sum(squares) / static_cast<float>(cols) + eps);
#pragma unroll
  for (int j = 0; j < kVectors; ++j) {
    const int32_t i = threadIdx.x + j * blockDim.x;
    if (i >= cols / kNormVector) continue;
    float v[kNormVector];
    unpack<T>(row[j], v);
    const auto* const factors = reinterpret_cast<const float4*>(weight + i * kNormVector);
    const float4 low = factors[0], high = factors[1];
    const float factor[kNormVector] = {low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w};
#pragma unroll
    for (int e = 0; e < kNormVector; ++e) v[e] = v[e] * scale * factor[e];
    out[i] = pack<T>(v);
  }
}

}  // namespace moerun::cuda
