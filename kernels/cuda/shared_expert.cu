#include "kernels/cuda/shared_expert.h"

#include "kernels/cuda/hopper.cuh"
#include "kernels/cuda/limits.h"
#include "kernels/cuda/rms_norm_row.cuh"

namespace moerun {
namespace {

using namespace cuda;

// ---------------------------------------------------------------- kernels

/// A block a row. x·gate: a thread's vectors ascending, then block_sum.
template <class T>
__global__ void __launch_bounds__(kMaxNormThreads)
    add_shared_kernel(const __grid_constant__ AddSharedArgs args) {
  const int32_t vectors = static_cast<int32_t>(args.sums.cols) / kNormVector;
  const int64_t row = static_cast<int64_t>(blockIdx.x) * vectors;
  const auto* const y = static_cast<const uint4*>(args.y.data) + row;
  auto* const sums = static_cast<uint4*>(args.sums.data) + row;
  dependency_wait();
  dependents_launch();
  float factor = 1;
  if (args.gate.data) {
    const auto* const x = static_cast<const uint4*>(args.x.data) + row;
    const auto* const gate = static_cast<const uint4*>(args.gate.data);
    float dot = 0;
    for (int32_t i = threadIdx.x; i < vectors; i += blockDim.x) {
      float a[kNormVector], b[kNormVector];
      unpack<T>(x[i], a);
      unpack<T>(gate[i], b);
#pragma unroll
      for (int e = 0; e < kNormVector; ++e) dot = fmaf(a[e], b[e], dot);
    }
    factor = 1.0f / (1.0f + expf(-block_sum(dot)));
  }
  for (int32_t i = threadIdx.x; i < vectors; i += blockDim.x) {
    float sum[kNormVector], add[kNormVector];
    unpack<T>(sums[i], sum);
    unpack<T>(y[i], add);
#pragma unroll
    for (int e = 0; e < kNormVector; ++e) sum[e] = fmaf(factor, add[e], sum[e]);
    sums[i] = pack<T>(sum);
  }
}

}  // namespace

// ---------------------------------------------------------------- launchers

void launch_add_shared(DType dtype, const AddSharedArgs& args, cudaStream_t stream) {
  if (args.sums.cols % kNormVector != 0 || args.sums.cols < kNormVector)
    throw Error("add_shared takes rows of a multiple of 8 elements, not " + std::to_string(args.sums.cols));
  if (args.sums.rows == 0) return;
  with_element(dtype, [&]<class T>(T) {
    launch_dependent(add_shared_kernel<T>, static_cast<unsigned>(args.sums.rows),
                     norm_threads(static_cast<int32_t>(args.sums.cols)), 0, stream, args);
  });
}

}  // namespace moerun
