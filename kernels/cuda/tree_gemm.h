#pragma once
#include <cuda_runtime_api.h>

#include <cstdint>

#include "moerun/dtype.h"

namespace moerun {

/// out = x·Wᵀ as Device::linear_tree means it: K in equal chunks, each summed by one float32 accumulator an
/// element, ascending, and rounded to dtype; then their binary tree, each node rounded.
struct TreeGemmArgs {
  DType dtype = DType::bfloat16;  ///< of x, w and out
  const void* x = nullptr;        ///< [rows, in_features]
  const void* w = nullptr;        ///< [out_features, in_features]
  void* out = nullptr;            ///< [rows, out_features]
  int64_t rows = 0, out_features = 0, in_features = 0;
  int32_t chunks = 0;   ///< of K
  int32_t num_sms = 0;  ///< the GPU's multiprocessors
};

/// Throws Error unless tree_gemm_takes (tree_gemm_tiling.h) the product.
void launch_tree_gemm(const TreeGemmArgs& args, cudaStream_t stream);

}  // namespace moerun
