#include <algorithm>
#include <bit>

#include "kernels/cuda/elementwise.h"
#include "kernels/cuda/hopper.cuh"
#include "kernels/cuda/limits.h"

namespace moerun {
namespace {

using namespace cuda;

constexpr int kThreads = 256, kVector = limits::kVector;
constexpr int kMaxShards = 64;

// ---------------------------------------------------------------- kernels

template <class T, class F>
__device__ uint4 zip(uint4 a, uint4 b, F f) {
  const auto both = [&](uint32_t x, uint32_t y) {
    const float2 u = unpack_floats<T>(x), v = unpack_floats<T>(y);
    return pack_floats<T>(f(u.x, v.x), f(u.y, v.y));
  };
  return make_uint4(both(a.x, b.x), both(a.y, b.y), both(a.z, b.z), both(a.w, b.w));
}

template <class T>
__global__ void __launch_bounds__(kThreads) silu_mul_kernel(const __grid_constant__ SiluMulArgs args) {
  dependency_wait();
  dependents_launch();
  const int64_t vectors = args.width / kVector, i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= args.rows * vectors) return;
  const auto* const gate = static_cast<const uint4*>(args.gate_up) + i / vectors * 2 * vectors + i % vectors;
  static_cast<uint4*>(args.out)[i] =
      zip<T>(gate[0], gate[vectors], [](float g, float u) { return g / (1 + expf(-g)) * u; });
}

template <class T>
__global__ void __launch_bounds__(kThreads) add_bias_kernel(const __grid_constant__ AddBiasArgs args) {
  dependency_wait();
  dependents_launch();
  const int64_t vectors = args.cols / kVector, i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= args.rows * vectors) return;
  auto* const x = static_cast<uint4*>(args.x) + i;
  *x = add_rounded<T>(*x, static_cast<const uint4*>(args.bias)[i % vectors]);
}

/// Of logits, whose rows are as long as the vocabulary and need not be whole vectors.
__global__ void __launch_bounds__(kThreads)
    add_bias_float32_kernel(const __grid_constant__ AddBiasArgs args) {
  dependency_wait();
  dependents_launch();
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i < args.rows * args.cols)
    static_cast<float*>(args.x)[i] += static_cast<const float*>(args.bias)[i % args.cols];
}

/// Like a binary counter: `open[l]` is the finished sum of 2^l shards that waits for its right half.
template <class T, int kLevels>
__global__ void __launch_bounds__(kThreads) tree_sum_kernel(const __grid_constant__ TreeSumArgs args) {
  dependency_wait();
  dependents_launch();
  const int64_t vectors = args.count / kVector, i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= vectors) return;
  const auto* const shards = static_cast<const uint4*>(args.shards) + i;
  uint4 open[kLevels + 1], node{};
#pragma unroll
  for (int s = 0; s < 1 << kLevels; ++s) {
    node = shards[s * vectors];
#pragma unroll
    for (int level = 0; level < kLevels; ++level) {
      if (!(s >> level & 1)) {
        open[level] = node;
        break;
      }
      node = add_rounded<T>(open[level], node);
    }
  }
  static_cast<uint4*>(args.out)[i] = node;
}

// ---------------------------------------------------------------- launchers

unsigned blocks(int64_t vectors) { return static_cast<unsigned>(ceil_div<int64_t>(vectors, kThreads)); }

}  // namespace

void launch_silu_mul(const SiluMulArgs& args, cudaStream_t stream) {
  if (args.width % kVector != 0)
    throw Error("silu_mul takes widths that are multiples of 8, not " + std::to_string(args.width));
  if (args.rows == 0) return;
  with_element(args.dtype, [&]<class T>(T) {
    launch_dependent(silu_mul_kernel<T>, blocks(args.rows * args.width / kVector), kThreads, 0, stream, args);
  });
}

void launch_add_bias(const AddBiasArgs& args, cudaStream_t stream) {
  if (args.dtype == DType::float32) {
    if (args.rows > 0)
      launch_dependent(add_bias_float32_kernel, blocks(args.rows * args.cols), kThreads, 0, stream, args);
    return;
  }
  if (args.cols % kVector != 0)
    throw Error("add_bias takes widths that are multiples of 8, not " + std::to_string(args.cols));
  if (args.rows == 0) return;
  with_element(args.dtype, [&]<class T>(T) {
    launch_dependent(add_bias_kernel<T>, blocks(args.rows * args.cols / kVector), kThreads, 0, stream, args);
  });
}

void launch_tree_sum(const TreeSumArgs& args, cudaStream_t stream) {
  if (args.count % kVector != 0 || args.num_shards < 1 || args.num_shards > kMaxShards ||
      !std::has_single_bit(static_cast<uint32_t>(args.num_shards)))
    throw Error("tree_sum takes 1 to 64 shards, a power of two, of a multiple of 8 elements; got " +
                std::to_string(args.num_shards) + " of " + std::to_string(args.count));
  if (args.count == 0) return;
  with_element(args.dtype, [&]<class T>(T) {
    const auto run = [&](auto* kernel) {
      launch_dependent(kernel, blocks(args.count / kVector), kThreads, 0, stream, args);
    };
    switch (std::countr_zero(static_cast<uint32_t>(args.num_shards))) {
      case 0:
        return run(tree_sum_kernel<T, 0>);
      case 1:
        return run(tree_sum_kernel<T, 1>);
      case 2:
        return run(tree_sum_kernel<T, 2>);
      case 3:
        return run(tree_sum_kernel<T, 3>);
      case 4:
        return run(tree_sum_kernel<T, 4>);
      case 5:
        return run(tree_sum_kernel<T, 5>);
      default:
        return run(tree_sum_kernel<T, 6>);
    }
  });
}

}  // namespace moerun
