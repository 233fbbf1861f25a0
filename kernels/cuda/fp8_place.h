#pragma once
#include <cuda_runtime_api.h>

#include <cstdint>

#include "moerun/dummy.h"

namespace moerun {

/// Puts rows of a checkpoint tensor in e4m3, and their scales, into an Fp8PackedWeight{dst_rows, cols}
/// (packed_weight.h).
struct Fp8PlaceArgs {
  const uint8_t* src = nullptr;  ///< [rows, cols]; null: dummy weights
  DummyWeights dummy;  ///< without src: e4m3 of element number first + r·dummy_stride + c of its tensor
  int64_t dummy_stride = 0;
  const float* scales = nullptr;  ///< [rows, scale_groups(cols)]; null: each is `scale`
  float scale = 1;
  uint8_t* dst = nullptr;
  int64_t dst_rows = 0;
  int64_t rows = 0, cols = 0;
  int64_t row0 = 0;         ///< logical row of the first one
  bool interleave = false;  ///< gate rows [0, dst_rows / 2) and up rows interleave
};

void launch_fp8_place(const Fp8PlaceArgs& args, cudaStream_t stream);

/// Says of each block of `count` packed matrices whether its scales are uniform. launch_fp8_place does so.
void launch_fp8_mark_uniform(uint8_t* packed, int64_t rows, int64_t cols, int64_t count, cudaStream_t stream);

}  // namespace moerun
