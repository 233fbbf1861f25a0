#include <algorithm>
#include <bit>

#include "kernels/cuda/hopper.cuh"
#include "kernels/cuda/norms.h"

namespace moerun {
namespace {

using namespace cuda;

constexpr int kVector = 8;  // elements of 16 bytes
constexpr int kMaxThreads = 1024, kMaxVectors = 2, kMaxCols = kMaxThreads * kMaxVectors * kVector;

// ---------------------------------------------------------------- kernels

template <class T>
__device__ void unpack(uint4 bits, float (&v)[kVector]) {
  const uint32_t words[4] = {bits.x, bits.y, bits.z, bits.w};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const float2 pair = unpack_floats<T>(words[i]);
    v[2 * i] = pair.x;
    v[2 * i + 1] = pair.y;
  }
}

template <class T>
__device__ uint4 pack(const float (&v)[kVector]) {
  return make_uint4(pack_floats<T>(v[0], v[1]), pack_floats<T>(v[2], v[3]), pack_floats<T>(v[4], v[5]),
                    pack_floats<T>(v[6], v[7]));
}

/// The sum over the block's threads, the same in each: a butterfly in each warp, then over the warps.
__device__ float block_sum(float value) {
  __shared__ float of_warp[kMaxThreads / kWarpSize];
  for (int d = kWarpSize / 2; d > 0; d /= 2) value += __shfl_xor_sync(kFullMask, value, d);
  if (threadIdx.x % kWarpSize == 0) of_warp[threadIdx.x / kWarpSize] = value;
  __syncthreads();
  value = threadIdx.x % kWarpSize < blockDim.x / kWarpSize ? of_warp[threadIdx.x % kWarpSize] : 0;
  for (int d = kWarpSize / 2; d > 0; d /= 2) value += __shfl_xor_sync(kFullMask, value, d);
  return value;
}

/// The binary tree sum of 2^kLevels vectors, into the first.
template <class T, int kLevels>
__device__ void tree_sum(uint4 (&node)[1 << kLevels]) {
#pragma unroll
  for (int step = 1; step < 1 << kLevels; step *= 2) {
#pragma unroll
    for (int i = 0; i < 1 << kLevels; i += 2 * step) node[i] = add_rounded<T>(node[i], node[i + step]);
  }
}

/// A block a row; a row stays in registers between the sum and the result.
template <class T, int kVectors, int kLevels>
__global__ void __launch_bounds__(kMaxThreads) rms_norm_kernel(const __grid_constant__ RmsNormArgs args) {
  const int32_t vectors = args.cols / kVector;
  const auto* const weight = static_cast<const uint4*>(args.weight);
  const int64_t row = static_cast<int64_t>(blockIdx.x) * vectors;
  const auto* const x = static_cast<const uint4*>(args.x) + row;
  auto* const residual = static_cast<uint4*>(args.residual) + (args.residual ? row : 0);
  auto* const out = static_cast<uint4*>(args.out) + row;
  const int64_t part = args.rows * vectors;
  float v[kVectors][kVector], sum = 0;
  uint4 w[kVectors], parts[kVectors][1 << kLevels], old[kVectors];
#pragma unroll
  for (int j = 0; j < kVectors; ++j) {  // weights are nobody's output: read before the wait
    const int32_t i = threadIdx.x + j * blockDim.x;
    if (i < vectors) w[j] = weight[i];
  }
  dependency_wait();
  dependents_launch();
#pragma unroll
  for (int j = 0; j < kVectors; ++j) {  // all loads in flight before the first sum
    const int32_t i = threadIdx.x + j * blockDim.x;
    if (i >= vectors) continue;
#pragma unroll
    for (int p = 0; p < 1 << kLevels; ++p) parts[j][p] = x[p * part + i];
    if (residual) old[j] = residual[i];
  }
#pragma unroll
  for (int j = 0; j < kVectors; ++j) {
    const int32_t i = threadIdx.x + j * blockDim.x;
    if (i >= vectors) continue;
    tree_sum<T, kLevels>(parts[j]);
    uint4 row_part = parts[j][0];
    if (residual) residual[i] = row_part = add_rounded<T>(row_part, old[j]);
    unpack<T>(row_part, v[j]);
#pragma unroll
    for (int e = 0; e < kVector; ++e) sum = fmaf(v[j][e], v[j][e], sum);
  }
  const float scale = rsqrtf(block_sum(sum) / static_cast<float>(args.cols) + args.eps);
#pragma unroll
  for (int j = 0; j < kVectors; ++j) {
    const int32_t i = threadIdx.x + j * blockDim.x;
    if (i >= vectors) continue;
    float factor[kVector];
    unpack<T>(w[j], factor);
#pragma unroll
    for (int e = 0; e < kVector; ++e) v[j][e] *= scale;
    unpack<T>(pack<T>(v[j]), v[j]);
#pragma unroll
    for (int e = 0; e < kVector; ++e) v[j][e] *= factor[e];
    out[i] = pack<T>(v[j]);
  }
}

// ---------------------------------------------------------------- launchers

template <class T, int kLevels>
void launch_parts(const RmsNormArgs& args, cudaStream_t stream) {
  const int32_t vectors = args.cols / kVector;
  const int threads = std::min(round_up(vectors, kWarpSize), kMaxThreads);
  const auto grid = static_cast<unsigned>(args.rows);
  if (vectors <= kMaxThreads)
    launch_dependent(rms_norm_kernel<T, 1, kLevels>, grid, threads, 0, stream, args);
  else
    launch_dependent(rms_norm_kernel<T, kMaxVectors, kLevels>, grid, threads, 0, stream, args);
}

}  // namespace

void launch_rms_norm(const RmsNormArgs& args, cudaStream_t stream) {
  if (args.cols % kVector != 0 || args.cols < kVector || args.cols > kMaxCols)
    throw Error("rms_norm takes rows of up to 16384 elements, a multiple of 8, not " +
                std::to_string(args.cols));
  if (args.num_parts < 1 || args.num_parts > kMaxRmsNormParts ||
      !std::has_single_bit(static_cast<uint32_t>(args.num_parts)))
    throw Error("rms_norm takes 1 to 8 parts, a power of two, not " + std::to_string(args.num_parts));
  if (args.rows == 0) return;
  with_element(args.dtype, [&]<class T>(T) {
    switch (args.num_parts) {
      case 1:
        return launch_parts<T, 0>(args, stream);
      case 2:
        return launch_parts<T, 1>(args, stream);
      case 4:
        return launch_parts<T, 2>(args, stream);
      default:
        return launch_parts<T, 3>(args, stream);
    }
  });
}

}  // namespace moerun
