#pragma once
#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>

namespace moerun {

/// A block of keys and values on its way: its number in the cache, and its place in pinned host memory.
struct SwapEntry {
  char* host = nullptr;  ///< [2 · layers][piece_bytes]
  int64_t block = 0;
};

struct SwapBlocksArgs {
  static constexpr int kMaxCaches = 192;
  char* caches[kMaxCaches] = {};  ///< keys and values of each layer, [num_blocks][piece_bytes]
  int32_t num_caches = 0;         ///< of them; the first is number `first_cache` of a host block
  int32_t first_cache = 0;
  size_t piece_bytes = 0;              ///< of one block in one of them; a multiple of 16
  const SwapEntry* entries = nullptr;  ///< [num_entries] that the device can read
  int32_t num_entries = 0;
  bool out = false;  ///< to the host, else back
};

/// Copies blocks between the cache and host memory over the bus, all pieces at once.
void launch_swap_blocks(const SwapBlocksArgs& args, cudaStream_t stream);

}  // namespace moerun
