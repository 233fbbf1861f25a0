#include <bit>

#include "kernels/cuda/hopper.cuh"
#include "kernels/cuda/limits.h"
#include "kernels/cuda/norms.h"
#include "kernels/cuda/rms_norm_row.cuh"

namespace moerun {
namespace {

using namespace cuda;

constexpr int kMaxVectors = 2, kMaxCols = kMaxNormThreads * kMaxVectors * kNormVector;
static_assert(kMaxCols == limits::kMaxNormCols && kNormVector == limits::kVector);

// ---------------------------------------------------------------- kernels

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
__global__ void __launch_bounds__(kMaxNormThreads) rms_norm_kernel(const __grid_constant__ RmsNormArgs args) {
  const int32_t vectors = args.cols / kNormVector;
  const auto* const weight = static_cast<const uint4*>(args.weight);
  const int64_t row = static_cast<int64_t>(blockIdx.x) * vectors;
  const auto* const x = static_cast<const uint4*>(args.x) + row;
  auto* const residual = static_cast<uint4*>(args.residual) + (args.residual ? row : 0);
  auto* const out = static_cast<uint4*>(args.out) + row;
  const int64_t part = args.rows * vectors;
  uint4 w[kVectors], parts[kVectors][1 << kLevels], old[kVectors], sum[kVectors];
  float squares = 0;
#pragma unroll
  for (int j = 0; j < kVectors; ++j) {  // weights are nobody's output: read before the wait
    const int32_t i = threadIdx.x + j * blockDim.x;
    if (i < vectors && !args.float32_weight) w[j] = weight[i];
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
    sum[j] = parts[j][0];
    if (residual) residual[i] = sum[j] = add_rounded<T>(sum[j], old[j]);
    squares = add_squares<T>(sum[j], squares);
  }
  if (args.float32_weight)
    write_normed<T>(sum, static_cast<const float*>(args.weight), squares, args.cols, args.eps, out);
  else
    write_normed<T>(sum, w, squares, args.cols, args.eps, out);
}

// ---------------------------------------------------------------- launchers

template <class T, int kLevels>
void launch_parts(const RmsNormArgs& args, cudaStream_t stream) {
  const int threads = norm_threads(args.cols);
  const auto grid = static_cast<unsigned>(args.rows);
  if (args.cols / kNormVector <= threads)
    launch_dependent(rms_norm_kernel<T, 1, kLevels>, grid, threads, 0, stream, args);
  else
    launch_dependent(rms_norm_kernel<T, kMaxVectors, kLevels>, grid, threads, 0, stream, args);
}

}  // namespace

void launch_rms_norm(const RmsNormArgs& args, cudaStream_t stream) {
  if (args.cols % kNormVector != 0 || args.cols < kNormVector || args.cols > kMaxCols)
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
