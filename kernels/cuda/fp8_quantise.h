#pragma once
#include <cuda_runtime_api.h>

#include <cstdint>

#include "moerun/dtype.h"

namespace moerun {

/// Rows of activations in e4m3 (moerun/fp8.h) in device memory; not owning. Rows are padded with zeros to
/// whole groups.
struct Fp8Rows {
  uint8_t* values = nullptr;  ///< [rows, scale_groups(cols) · kScaleGroup]
  float* scales = nullptr;    ///< [rows, scale_groups(cols)]
};

struct Fp8QuantiseArgs {
  DType dtype = DType::bfloat16;  ///< of x
  const void* x = nullptr;        ///< [rows, cols]
  int64_t rows = 0, cols = 0;     ///< cols a multiple of 8
  Fp8Rows out;
  bool after_kernel = true;  ///< of the same stream; else after what several streams did, as attention may
};

void launch_fp8_quantise(const Fp8QuantiseArgs& args, cudaStream_t stream);

}  // namespace moerun
