#include "kernels/cuda/common.cuh"
#include "kernels/cuda/copy_rows.h"

namespace moerun {

namespace {

constexpr int kThreads = 256;

// ---------------------------------------------------------------- kernels

/// A block of threads for each entry of each cache.
__global__ void __launch_bounds__(kThreads) copy_rows_kernel(const __grid_constant__ CopyRowsArgs args) {
  const CopyRowsEntry entry = args.entries[blockIdx.y];
  const auto head_pieces = static_cast<int64_t>(args.block_size * args.row_bytes / sizeof(uint4));
  const int64_t block_pieces = args.num_heads * head_pieces;
  auto* const cache = reinterpret_cast<uint4*>(args.caches[blockIdx.x]);
  const uint4* const from = cache + entry.from * block_pieces;
  uint4* const to = cache + entry.to * block_pieces;
  const auto copied = static_cast<int>(entry.rows * args.row_bytes / sizeof(uint4));  // of a head
  for (int i = threadIdx.x; i < args.num_heads * copied; i += kThreads) {
    const int64_t at = i / copied * head_pieces + i % copied;
    to[at] = from[at];
  }
}

}  // namespace

// ---------------------------------------------------------------- launchers

void launch_copy_rows(const CopyRowsArgs& args, cudaStream_t stream) {
  if (args.num_entries == 0) return;
  const dim3 grid(static_cast<unsigned>(args.num_caches), static_cast<unsigned>(args.num_entries));
  copy_rows_kernel<<<grid, kThreads, 0, stream>>>(args);
  CUDA_CHECK(cudaGetLastError());
}

}  // namespace moerun
