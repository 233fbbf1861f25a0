#include "kernels/cuda/common.cuh"
#include "kernels/cuda/swap_blocks.h"

namespace moerun {

namespace {

constexpr int kThreads = 256, kUnroll = 4;

/// A block of threads for each piece.
__global__ void __launch_bounds__(kThreads) swap_kernel(const __grid_constant__ SwapBlocksArgs args) {
  const SwapEntry entry = args.entries[blockIdx.y];
  const int cache = blockIdx.x;
  auto* to = reinterpret_cast<uint4*>(args.caches[cache] + entry.block * args.piece_bytes);
  auto* from = reinterpret_cast<uint4*>(entry.host + (args.first_cache + cache) * args.piece_bytes);
  if (args.out) {
    uint4* const device = to;
    to = from;
    from = device;
  }
  const auto count = static_cast<int>(args.piece_bytes / sizeof(uint4));
  for (int i = threadIdx.x; i < count; i += kThreads * kUnroll) {
    uint4 value[kUnroll];
#pragma unroll
    for (int u = 0; u < kUnroll; ++u)
      if (i + u * kThreads < count) value[u] = from[i + u * kThreads];
#pragma unroll
    for (int u = 0; u < kUnroll; ++u)
      if (i + u * kThreads < count) to[i + u * kThreads] = value[u];
  }
}

}  // namespace

void launch_swap_blocks(const SwapBlocksArgs& args, cudaStream_t stream) {
  if (args.num_entries == 0) return;
  const dim3 grid(static_cast<unsigned>(args.num_caches), static_cast<unsigned>(args.num_entries));
  swap_kernel<<<grid, kThreads, 0, stream>>>(args);
  CUDA_CHECK(cudaGetLastError());
}

}  // namespace moerun
