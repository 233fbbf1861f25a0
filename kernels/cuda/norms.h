#pragma once
#include <cuda_runtime_api.h>

#include <cstdint>

#include "moerun/dtype.h"

namespace moerun {

constexpr int32_t kMaxRmsNormParts = 8;

/// Hugging Face `Qwen3MoeRMSNorm`, with its rounding: x·rsqrt(mean(x²) + eps) in float32, rounded to dtype,
/// times weight, rounded. A row's sum has one order that depends on `cols` alone.
struct RmsNormArgs {
  DType dtype = DType::bfloat16;
  const void* x = nullptr;  ///< [num_parts, rows, cols]
  /// A power of two, at most kMaxRmsNormParts: the binary tree sum of that many parts, each node rounded to
  /// dtype, stands for x (TreeSumArgs).
  int32_t num_parts = 1;
  /// Not null: [rows, cols] residual stream. x is added to it (rounded to dtype), and the sum is normalised.
  void* residual = nullptr;
  const void* weight = nullptr;  ///< [cols]
  bool float32_weight = false;   ///< weight is in float32, and the norm is rounded once, behind it
  void* out = nullptr;           ///< [rows, cols]
  int64_t rows = 0;
  int32_t cols = 0;  ///< at most 16,384, a multiple of 8
  float eps = 0;
};

void launch_rms_norm(const RmsNormArgs& args, cudaStream_t stream);

}  // namespace moerun
