#pragma once
#include <cuda_runtime_api.h>

#include "moerun/device.h"

namespace moerun {

/// Sums of squares of the first out.cols heads of each row: out [n, heads] float32. Head sizes 64, 128 and
/// 256.
struct HeadSquaresArgs {
  DType dtype = DType::bfloat16;
  const void* rows = nullptr;  ///< [n, width]
  float* out = nullptr;        ///< [n, heads]
  int64_t n = 0, width = 0;
  int32_t heads = 0, head_dim = 0;
};

void launch_head_squares(const HeadSquaresArgs& args, cudaStream_t stream);

/// Device::qk_scales.
void launch_qk_scales(const QkScalesArgs& args, cudaStream_t stream);

}  // namespace moerun
