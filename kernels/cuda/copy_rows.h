#pragma once
#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>

namespace moerun {

/// The first `rows` tokens of one block, which become the first of another.
struct CopyRowsEntry {
  int32_t from = 0, to = 0, rows = 0;
};

struct CopyRowsArgs {
  static constexpr int kMaxCaches = 192;
  char* caches[kMaxCaches] =
      {};  ///< keys and values of some layers, [num_blocks, num_heads, block_size] rows
  int32_t num_caches = 0;
  int32_t num_heads = 0;                   ///< key/value heads of a block
  int32_t block_size = 0;                  ///< rows of a head in a block
  size_t row_bytes = 0;                    ///< a multiple of 16
  const CopyRowsEntry* entries = nullptr;  ///< [num_entries] that the device can read
  int32_t num_entries = 0;
};

/// Copies within the cache, all entries at once: no block is read and written by the same launch.
void launch_copy_rows(const CopyRowsArgs& args, cudaStream_t stream);

}  // namespace moerun
