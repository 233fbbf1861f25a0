#include <algorithm>

#include "kernels/cuda/gather_rows.h"
#include "kernels/cuda/hopper.cuh"

namespace moerun {
namespace {

using namespace cuda;

constexpr int kMaxThreads = 256;

// ---------------------------------------------------------------- kernels

/// A block a row.
template <class Vector>
__global__ void __launch_bounds__(kMaxThreads) gather_kernel(const __grid_constant__ GatherRowsArgs args) {
  dependency_wait();
  dependents_launch();
  const int64_t vectors = args.row_bytes / static_cast<int64_t>(sizeof(Vector));
  const auto* const in = static_cast<const Vector*>(args.src) + args.indices[blockIdx.x] * vectors;
  auto* const out = static_cast<Vector*>(args.out) + blockIdx.x * vectors;
  for (int64_t i = threadIdx.x; i < vectors; i += blockDim.x) out[i] = in[i];
}

// ---------------------------------------------------------------- launchers

template <class Vector>
void launch(const GatherRowsArgs& args, cudaStream_t stream) {
  const auto vectors = static_cast<int>(args.row_bytes / static_cast<int64_t>(sizeof(Vector)));
  const int threads = std::clamp(round_up(vectors, kWarpSize), kWarpSize, kMaxThreads);
  launch_dependent(gather_kernel<Vector>, static_cast<unsigned>(args.rows), threads, 0, stream, args);
}

}  // namespace

void launch_gather_rows(const GatherRowsArgs& args, cudaStream_t stream) {
  if (args.rows == 0) return;
  if (args.row_bytes % 16 == 0)
    launch<uint4>(args, stream);
  else
    launch<uint16_t>(args, stream);
}

}  // namespace moerun
