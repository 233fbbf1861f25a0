#pragma once
#include <cuda_runtime_api.h>

#include <cstdint>

#include "moerun/dtype.h"

namespace moerun {

/// out = silu(gate)·up in float32, rounded once.
struct SiluMulArgs {
  DType dtype = DType::bfloat16;
  const void* gate_up = nullptr;  ///< [rows, 2·width]: gate, then up
  void* out = nullptr;            ///< [rows, width]
  int64_t rows = 0, width = 0;    ///< width: a multiple of 8
};

void launch_silu_mul(const SiluMulArgs& args, cudaStream_t stream);

/// Every row of x += bias, rounded once.
struct AddBiasArgs {
  DType dtype = DType::bfloat16;  ///< of both; float32 too
  void* x = nullptr;              ///< [rows, cols]
  const void* bias = nullptr;     ///< [cols]
  int64_t rows = 0, cols = 0;     ///< cols: a multiple of 8, but for float32
};

void launch_add_bias(const AddBiasArgs& args, cudaStream_t stream);

/// out[i] = binary tree sum over s of shards[s·count + i], each node rounded to dtype.
struct TreeSumArgs {
  DType dtype = DType::bfloat16;
  const void* shards = nullptr;  ///< [num_shards, count]
  void* out = nullptr;           ///< [count]
  int64_t count = 0;             ///< a multiple of 8
  int32_t num_shards = 1;        ///< a power of two, at most 64
};

void launch_tree_sum(const TreeSumArgs& args, cudaStream_t stream);

}  // namespace moerun
