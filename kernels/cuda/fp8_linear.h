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
  void* out = nullptr;            ///< [parts, rows, out_features]; of a tree [rows, out_features]
  int64_t rows = 0, out_features = 0, in_features = 0;
  int32_t parts = 1;
  bool tree = false;    ///< the 2, 4 or 8 parts' products are summed as a binary tree, each node rounded
  int32_t num_sms = 0;  ///< the GPU's multiprocessors
};

/// Whether it is worth while to sum a tree in one pass. Else the parts' products go to memory for another
/// kernel to sum: the same bits.
constexpr bool fp8_linear_takes_tree(int64_t rows, int32_t parts) {
  return rows >= 512 && (parts == 2 || parts == 4 || parts == 8);
}

void launch_fp8_linear(const Fp8LinearArgs& args, cudaStream_t stream);

}  // namespace moerun
