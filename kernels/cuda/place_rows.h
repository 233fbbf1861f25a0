#pragma once
#include <cuda_runtime_api.h>

#include <cstdint>

#include "moerun/dtype.h"
#include "moerun/dummy.h"

namespace moerun {

/// Puts rows of a checkpoint tensor where the kernels expect them, converting the element type.
struct PlaceRowsArgs {
  const void* src = nullptr;  ///< [rows, cols] packed; null: dummy weights
  DType src_dtype = DType::float32;
  DummyWeights dummy;  ///< without src: element (r, c) is number first + r·dummy_stride + c of its tensor
  int64_t dummy_stride = 0;
  void* dst = nullptr;  ///< the whole destination matrix [.., cols]
  DType dst_dtype = DType::bfloat16;
  int64_t rows = 0, cols = 0;
  int64_t row0 = 0;  ///< logical row of the first one
  /// 0: logical row r is row r. Else gate rows [0, half) and up rows [half, 2·half) interleave in units of
  /// this many rows: unit u of gate becomes unit 2u, unit u of up becomes unit 2u + 1.
  int32_t interleave = 0;
  int64_t half = 0;
  int64_t packed_rows = 0;  ///< not 0: dst is a PackedWeight{packed_rows, cols} (packed_weight.h)
};

void launch_place_rows(const PlaceRowsArgs& args, cudaStream_t stream);

}  // namespace moerun
