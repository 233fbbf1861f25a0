#include "kernels/cuda/hopper.cuh"
#include "kernels/cuda/limits.h"
#include "kernels/cuda/ordered_gemm.h"

namespace moerun {
namespace {

using namespace cuda;

constexpr int kWarps = 4, kThreads = kWarps * kWarpSize;
constexpr int kWarpRows = 16, kTiles = 8, kWarpCols = kTiles * 8;  // of the output, a warp
constexpr int kStep = 16;                                          // along K, an instruction

// ---------------------------------------------------------------- kernels

/// Elements `col` and `col + 1` of a row; zeros outside.
template <class T>
__device__ uint32_t load_pair(const T* row, int64_t col, int64_t cols, bool valid) {
  if (!valid || col >= cols) return 0;
  if (col + 1 < cols) {
    const auto at = reinterpret_cast<uintptr_t>(row + col);
    if (at % 4 == 0) return *reinterpret_cast<const uint32_t*>(at);
  }
  const uint32_t low = *reinterpret_cast<const uint16_t*>(row + col);
  return col + 1 < cols ? low | static_cast<uint32_t>(*reinterpret_cast<const uint16_t*>(row + col + 1)) << 16
                        : low;
}

template <class T>
__device__ void finish(const OrderedGemmArgs& args, int64_t row, int64_t col, float value) {
  if (row >= args.rows || col >= args.out_features) return;
  if (args.bias) value += Element<T>::to_float(static_cast<const T*>(args.bias)[col]);
  const int64_t at = row * args.out_features + col;
  if (args.out_dtype == DType::float32) {
    float* const out = static_cast<float*>(args.out) + at;
    if (!args.differing)
      *out = value;
    else if (__float_as_uint(*out) != __float_as_uint(value))
      atomicAdd(args.differing, 1);
    return;
  }
  T* const out = static_cast<T*>(args.out) + at;
  const T rounded = Element<T>::from_float(value);
  if (!args.differing)
    *out = rounded;
  else if (*reinterpret_cast<const uint16_t*>(out) != *reinterpret_cast<const uint16_t*>(&rounded))
    atomicAdd(args.differing, 1);
}

/// A warp computes 16 rows × 64 columns; fragments come straight from the caches.
template <class T>
__global__ void __launch_bounds__(kThreads)
    ordered_gemm_kernel(const __grid_constant__ OrderedGemmArgs args) {
  dependency_wait();
  dependents_launch();
  const int lane = threadIdx.x % kWarpSize, warp = threadIdx.x / kWarpSize, group = lane / 4, quad = lane % 4;
  const int64_t row0 = static_cast<int64_t>(blockIdx.y) * kWarpRows;
  const int64_t col0 = (static_cast<int64_t>(blockIdx.x) * kWarps + warp) * kWarpCols;
  const T* const x = static_cast<const T*>(args.x) + (row0 + group) * args.ldx;
  const T* const x8 = x + 8 * args.ldx;
  const bool row_valid = row0 + group < args.rows, row8_valid = row0 + group + 8 < args.rows;
  float d[kTiles][4] = {};
  for (int64_t k = 0; k < args.in_features; k += kStep) {
    const int64_t low = k + quad * 2, high = low + 8;
    const uint32_t a0 = load_pair(x, low, args.in_features, row_valid),
                   a1 = load_pair(x8, low, args.in_features, row8_valid),
                   a2 = load_pair(x, high, args.in_features, row_valid),
                   a3 = load_pair(x8, high, args.in_features, row8_valid);
#pragma unroll
    for (int tile = 0; tile < kTiles; ++tile) {
      const int64_t col = col0 + tile * 8 + group;
      const T* const w = static_cast<const T*>(args.w) + col * args.ldw;
      const bool valid = col < args.out_features;
      mma_16x8x16<T>(d[tile], a0, a1, a2, a3, load_pair(w, low, args.in_features, valid),
                     load_pair(w, high, args.in_features, valid));
    }
  }
#pragma unroll
  for (int tile = 0; tile < kTiles; ++tile) {
    const int64_t col = col0 + tile * 8 + quad * 2;
    finish<T>(args, row0 + group, col, d[tile][0]);
    finish<T>(args, row0 + group, col + 1, d[tile][1]);
    finish<T>(args, row0 + group + 8, col, d[tile][2]);
    finish<T>(args, row0 + group + 8, col + 1, d[tile][3]);
  }
}

}  // namespace

// ---------------------------------------------------------------- launchers

void launch_ordered_gemm(const OrderedGemmArgs& args, cudaStream_t stream) {
  if (args.rows == 0) return;
  const dim3 grid(static_cast<unsigned>(ceil_div<int64_t>(args.out_features, kWarps * kWarpCols)),
                  static_cast<unsigned>(ceil_div<int64_t>(args.rows, kWarpRows)));
  static_assert(kWarpRows == limits::kOrderedGemmRows);
  if (grid.y > limits::kMaxGridRows)
    throw Error("ordered_gemm: " + std::to_string(args.rows) + " rows at once are too many");
  with_element(args.dtype, [&]<class T>(T) {
    launch_dependent(ordered_gemm_kernel<T>, grid, kThreads, 0, stream, args);
  });
}

}  // namespace moerun
