#pragma once
#include <cuda_runtime_api.h>

#include <cstdint>

#include "moerun/dtype.h"

namespace moerun {

/// out = x·Wᵀ (+ bias) in the one order that every product of this program has (invariant 1): a float32
/// accumulator an element, ascending along K in the tensor cores' steps of 16, rounded once at the end. Plain
/// rather than fast: what a library's product is held against, and what computes shapes that the library
/// does not take.
struct OrderedGemmArgs {
  DType dtype = DType::bfloat16;      ///< of x, w and bias
  DType out_dtype = DType::bfloat16;  ///< dtype, or float32
  const void* x = nullptr;            ///< [rows, in_features], rows ldx elements apart
  const void* w = nullptr;            ///< [out_features, in_features], rows ldw elements apart
  const void* bias = nullptr;         ///< optional [out_features]
  /// [rows, out_features]. Written; or, with `differing`, only compared: += the elements whose bits differ.
  void* out = nullptr;
  uint32_t* differing = nullptr;
  int64_t ldx = 0, ldw = 0;
  int64_t rows = 0, out_features = 0, in_features = 0;
};

void launch_ordered_gemm(const OrderedGemmArgs& args, cudaStream_t stream);

}  // namespace moerun
