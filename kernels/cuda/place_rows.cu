#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "kernels/cuda/packed_weight.h"
#include "kernels/cuda/place_rows.h"
#include "moerun/error.h"

namespace moerun {

namespace {

template <typename T>
__device__ T from_float(float x);
template <>
__device__ float from_float<float>(float x) {
  return x;
}
template <>
__device__ __half from_float<__half>(float x) {
  return __float2half_rn(x);
}
template <>
__device__ __nv_bfloat16 from_float<__nv_bfloat16>(float x) {
  return __float2bfloat16_rn(x);
}

__device__ int64_t placed_row(const PlaceRowsArgs& args, int64_t row) {
  if (args.interleave == 0) return row;
  const int64_t in_half = row % args.half;
  const int64_t unit = in_half / args.interleave * 2 + row / args.half;
  return unit * args.interleave + in_half % args.interleave;
}

/// A block a row: start-up is bound by the bus and the disk, so this is written to be read.
template <typename Src, typename Dst>
__global__ void place_rows_kernel(const __grid_constant__ PlaceRowsArgs args) {
  for (int64_t row = blockIdx.x; row < args.rows; row += gridDim.x) {
    Dst* const out = static_cast<Dst*>(args.dst);
    const int64_t place = placed_row(args, args.row0 + row);
    const PackedWeight packed{args.packed_rows, args.cols};
    const Src* const in = static_cast<const Src*>(args.src) + row * args.cols;
    for (int64_t col = threadIdx.x; col < args.cols; col += blockDim.x) {
      const float x = args.src ? static_cast<float>(in[col])
                               : dummy_weight(args.dummy, args.dummy.first + row * args.dummy_stride + col);
      out[args.packed_rows ? packed.offset(place, col) : place * args.cols + col] = from_float<Dst>(x);
    }
  }
}

template <typename Src>
void launch_to(const PlaceRowsArgs& args, unsigned grid, cudaStream_t stream) {
  constexpr int kThreads = 256;
  switch (args.dst_dtype) {
    case DType::float32:
      place_rows_kernel<Src, float><<<grid, kThreads, 0, stream>>>(args);
      break;
    case DType::float16:
      place_rows_kernel<Src, __half><<<grid, kThreads, 0, stream>>>(args);
      break;
    case DType::bfloat16:
      place_rows_kernel<Src, __nv_bfloat16><<<grid, kThreads, 0, stream>>>(args);
      break;
    case DType::e4m3:
      throw Error("weights in e4m3 are not placed by this kernel");
  }
}

}  // namespace

void launch_place_rows(const PlaceRowsArgs& args, cudaStream_t stream) {
  if (args.rows == 0 || args.cols == 0) return;
  const auto grid = static_cast<unsigned>(args.rows < 65536 ? args.rows : 65536);
  switch (args.src ? args.src_dtype : DType::float32) {
    case DType::float32:
      launch_to<float>(args, grid, stream);
      break;
    case DType::float16:
      launch_to<__half>(args, grid, stream);
      break;
    case DType::bfloat16:
      launch_to<__nv_bfloat16>(args, grid, stream);
      break;
    case DType::e4m3:
      throw Error("weights in e4m3 are not placed by this kernel");
  }
}

}  // namespace moerun
