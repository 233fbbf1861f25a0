#pragma once
#include <cuda_runtime_api.h>

#include <cstdint>

#include "kernels/cuda/fp8_quantise.h"
#include "moerun/dtype.h"

namespace moerun {

/// out[p] = x·Wᵀ + bias over part p of K, as moerun/fp8.h says, rounded to dtype. out_features is a multiple
/// of 8; with more than one part a part is whole groups.
struct Fp8LinearArgs {
  DType dtype = DType::bfloat16;  ///< of bias and out
  Fp8Rows x;                      ///< [rows, in_features]
  const uint8_t* w = nullptr;     ///< Fp8PackedWeight{out_features, in_features}
  const void* bias = nullptr;     ///< optional [out_features]
  void* out = nullptr;            ///< [parts, rows, out_features]
  int64_t rows = 0, out_features = 0, in_features = 0;
  int32_t parts = 1;
  int32_t num_sms = 0;  ///< the GPU's multiprocessors
};

void launch_fp8_linear(const Fp8LinearArgs& args, cudaStream_t stream);

}  // namespace moerun
