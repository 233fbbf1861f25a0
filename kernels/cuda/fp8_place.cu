#include "kernels/cuda/fp8_place.h"

#include <algorithm>

#include "kernels/cuda/fp8.cuh"
#include "kernels/cuda/packed_weight.h"

namespace moerun {
namespace {

using namespace cuda;

constexpr int kThreads = 256;
constexpr int64_t kMaxBlocks = 65536;

// ---------------------------------------------------------------- kernels

/// A block a row: start-up is bound by the bus and the disk, so this is written to be read.
__global__ void fp8_place_kernel(const __grid_constant__ Fp8PlaceArgs args) {
  const Fp8PackedWeight packed{args.dst_rows, args.cols};
  const int64_t groups = scale_groups(args.cols), half = args.dst_rows / 2;
  for (int64_t row = blockIdx.x; row < args.rows; row += gridDim.x) {
    const int64_t logical = args.row0 + row;
    const int64_t place =
        args.interleave ? PackedWeight::gate_up_row(logical % half, logical >= half) : logical;
    for (int64_t col = threadIdx.x; col < args.cols; col += blockDim.x) {
      const int64_t at = args.dummy.first + row * args.dummy_stride + col;
      args.dst[packed.offset(place, col)] =
          args.src ? args.src[row * args.cols + col]
                   : static_cast<uint8_t>(pack_e4m3(dummy_weight(args.dummy, at), 0));
    }
    for (int64_t group = threadIdx.x; group < groups; group += blockDim.x) {
      const float scale = args.scales ? args.scales[row * groups + group] : args.scale;
      *reinterpret_cast<float*>(args.dst + packed.scale_offset(place, group * kScaleGroup)) = scale;
    }
  }
}

/// A warp a block of weights. Rows past the matrix's end have any scale.
__global__ void fp8_mark_uniform_kernel(uint8_t* matrix, Fp8PackedWeight packed, int64_t count) {
  const int64_t block = (static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x) / kWarpSize;
  if (block >= count * packed.blocks()) return;
  const int lane = threadIdx.x % kWarpSize;
  auto& scales = *reinterpret_cast<Fp8BlockScales*>(matrix + block * Fp8PackedWeight::kBlockBytes +
                                                    Fp8PackedWeight::kElementBytes);
  const int64_t first_row = block % packed.blocks() / packed.col_blocks() * Fp8PackedWeight::kBlockRows;
  const auto rows = static_cast<int>(min(packed.rows - first_row, Fp8PackedWeight::kBlockRows));
  const float even = scales.row[0], odd = rows > 8 ? scales.row[8] : even;
  bool same = true;
  for (int row = lane; row < rows; row += kWarpSize)
    same &= scales.row[row] == (row / 8 % 2 == 0 ? even : odd);
  const bool uniform = __all_sync(kFullMask, same);
  if (lane != 0) return;
  scales.even = even;
  scales.odd = odd;
  scales.uniform = uniform;
}

}  // namespace

// ---------------------------------------------------------------- launchers

void launch_fp8_mark_uniform(uint8_t* packed, int64_t rows, int64_t cols, int64_t count,
                             cudaStream_t stream) {
  const Fp8PackedWeight of{rows, cols};
  const auto grid = static_cast<unsigned>(ceil_div<int64_t>(count * of.blocks() * kWarpSize, kThreads));
  fp8_mark_uniform_kernel<<<grid, kThreads, 0, stream>>>(packed, of, count);
  CUDA_CHECK(cudaGetLastError());
}

void launch_fp8_place(const Fp8PlaceArgs& args, cudaStream_t stream) {
  if (args.rows == 0 || args.cols == 0) return;
  const auto grid = static_cast<unsigned>(std::min(args.rows, kMaxBlocks));
  fp8_place_kernel<<<grid, kThreads, 0, stream>>>(args);
  CUDA_CHECK(cudaGetLastError());
  launch_fp8_mark_uniform(args.dst, args.dst_rows, args.cols, 1, stream);
}

}  // namespace moerun
