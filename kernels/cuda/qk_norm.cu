// The norm of queries and keys over all heads together: sums of squares by head, which tensor-parallel ranks
// gather, then one sum over heads whose order no layout changes. launch_rope_cache multiplies by the result.
#include "kernels/cuda/qk_norm.h"

#include "kernels/cuda/attention_heads.cuh"
#include "kernels/cuda/hopper.cuh"

namespace moerun {
namespace {

using namespace cuda;

constexpr int kThreads = 128, kWarps = kThreads / kWarpSize;

// ---------------------------------------------------------------- kernels

/// A warp a head. A lane sums its kDim/32 consecutive elements, ascending; then a butterfly over lanes.
template <class T, int kDim>
__global__ void __launch_bounds__(kThreads)
    head_squares_kernel(const __grid_constant__ HeadSquaresArgs args) {
  dependency_wait();
  dependents_launch();
  const int lane = threadIdx.x % kWarpSize;
  const int64_t at = static_cast<int64_t>(blockIdx.x) * kWarps + threadIdx.x / kWarpSize;
  if (at >= args.n * args.heads) return;
  const auto* const head = reinterpret_cast<const uint32_t*>(
      static_cast<const T*>(args.rows) + at / args.heads * args.width + at % args.heads * kDim);
  float sum = 0;
#pragma unroll
  for (int i = 0; i < kDim / 2 / kWarpSize; ++i) {
    const float2 pair = unpack_floats<T>(head[lane * (kDim / 2 / kWarpSize) + i]);
    sum = fmaf(pair.y, pair.y, fmaf(pair.x, pair.x, sum));
  }
  for (int d = kWarpSize / 2; d > 0; d /= 2) sum += __shfl_xor_sync(kFullMask, sum, d);
  if (lane == 0) args.out[at] = sum;
}

/// The sum over `heads` heads in ascending order, from whichever rank is the first to have each.
__device__ float scale_of(const QkScalesArgs& args, int64_t token, int32_t heads, int32_t first_col) {
  const auto* const squares = static_cast<const float*>(args.squares.data);
  float sum = 0;
  for (int32_t head = 0; head < heads; ++head) {
    const int32_t rank = head * args.tensor / heads, first_head = rank * heads / args.tensor;
    sum += squares[(rank * args.out.rows + token) * args.squares.cols + first_col + head - first_head];
  }
  const auto width = static_cast<float>(heads * args.head_dim);
  return rsqrtf(sum / width + args.eps);
}

/// A thread a token and queries or keys.
__global__ void __launch_bounds__(kThreads) qk_scales_kernel(const __grid_constant__ QkScalesArgs args) {
  dependency_wait();
  dependents_launch();
  const int64_t at = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (at >= args.out.rows * 2) return;
  const bool keys = at % 2 == 1;
  static_cast<float*>(args.out.data)[at] = scale_of(args, at / 2, keys ? args.num_kv_heads : args.num_heads,
                                                    keys ? args.num_heads / args.tensor : 0);
}

}  // namespace

// ---------------------------------------------------------------- launchers

void launch_head_squares(const HeadSquaresArgs& args, cudaStream_t stream) {
  if (args.n == 0) return;
  with_head(args.dtype, args.head_dim, [&]<class T, int kDim>() {
    launch_dependent(head_squares_kernel<T, kDim>,
                     static_cast<unsigned>(ceil_div<int64_t>(args.n * args.heads, kWarps)), kThreads, 0,
                     stream, args);
  });
}

void launch_qk_scales(const QkScalesArgs& args, cudaStream_t stream) {
  if (args.out.rows == 0) return;
  launch_dependent(qk_scales_kernel, static_cast<unsigned>(ceil_div<int64_t>(args.out.rows * 2, kThreads)),
                   kThreads, 0, stream, args);
}

}  // namespace moerun
