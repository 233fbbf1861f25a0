#include <algorithm>

#include "kernels/cuda/fp8.cuh"
#include "kernels/cuda/fp8_quantise.h"
#include "kernels/cuda/hopper.cuh"
#include "kernels/cuda/limits.h"
#include "kernels/cuda/rms_norm_row.cuh"

namespace moerun {
namespace {

using namespace cuda;

constexpr int kThreads = 256;
constexpr int kLanes = 8, kVectors = 2;  // a group is eight lanes of two vectors each
static_assert(kLanes * kVectors * kNormVector == kScaleGroup);

// ---------------------------------------------------------------- kernel

/// Eight threads a group: each reads 16 elements in two pieces of 16 bytes and writes 16 bytes.
template <class T>
__global__ void __launch_bounds__(kThreads)
    fp8_quantise_kernel(const __grid_constant__ Fp8QuantiseArgs args) {
  const int64_t groups = scale_groups(args.cols), count = args.rows * groups;
  dependency_wait();
  dependents_launch();
  const int lane = threadIdx.x % kLanes;
  constexpr int kGroups = kThreads / kLanes;
  for (int64_t first = static_cast<int64_t>(blockIdx.x) * kGroups; first < count;
       first += static_cast<int64_t>(gridDim.x) * kGroups) {
    const int64_t group = first + threadIdx.x / kLanes;
    const int64_t row = group / groups, col = group % groups * kScaleGroup + lane * (kVectors * kNormVector);
    const auto* const x =
        reinterpret_cast<const uint4*>(static_cast<const T*>(args.x) + row * args.cols + col);
    uint4 raw[kVectors] = {};
#pragma unroll
    for (int i = 0; i < kVectors; ++i) {
      if (group < count && col + i * kNormVector < args.cols) raw[i] = x[i];
    }
    float v[kVectors][kNormVector], amax = 0;
#pragma unroll
    for (int i = 0; i < kVectors; ++i) {
      unpack<T>(raw[i], v[i]);
#pragma unroll
      for (float e : v[i]) amax = fmaxf(amax, fabsf(e));
    }
    const float scale = activation_scale(amax_of_lanes<kLanes>(amax));
    const Fp8Divider divide(scale);
    uint32_t words[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const float* const w = v[i / 2] + i % 2 * 4;
      words[i] = pack_e4m3(divide(w[0]), divide(w[1]), divide(w[2]), divide(w[3]));
    }
    if (group >= count) continue;
    reinterpret_cast<uint4*>(args.out.values)[group * kLanes + lane] =
        make_uint4(words[0], words[1], words[2], words[3]);
    if (lane == 0) args.out.scales[group] = scale;
  }
}

}  // namespace

// ---------------------------------------------------------------- launcher

void launch_fp8_quantise(const Fp8QuantiseArgs& args, cudaStream_t stream) {
  if (args.cols % limits::kVector != 0)
    throw Error("fp8_quantise takes rows of a multiple of 8 elements, not " + std::to_string(args.cols));
  if (args.rows == 0) return;
  constexpr int64_t kMaxBlocks = 132 * 8;
  const int64_t blocks = ceil_div<int64_t>(args.rows * scale_groups(args.cols), kThreads / kLanes);
  with_element(args.dtype, [&]<class T>(T) {
    launch(args.after_kernel ? Follow::kernel : Follow::anything, fp8_quantise_kernel<T>,
           static_cast<unsigned>(std::min(blocks, kMaxBlocks)), kThreads, 0, stream, args);
  });
}

}  // namespace moerun
