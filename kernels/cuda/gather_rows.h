#pragma once
#include <cuda_runtime_api.h>

#include <cstdint>

namespace moerun {

/// out[i] = src[indices[i]]: token embeddings, and the hidden rows that logits are wanted of.
struct GatherRowsArgs {
  const void* src = nullptr;         ///< [.., row_bytes]
  const int32_t* indices = nullptr;  ///< [rows]
  void* out = nullptr;               ///< [rows, row_bytes]
  int64_t rows = 0;
  int64_t row_bytes = 0;  ///< a multiple of 2; 16-byte accesses where it is a multiple of 16
};

void launch_gather_rows(const GatherRowsArgs& args, cudaStream_t stream);

}  // namespace moerun
