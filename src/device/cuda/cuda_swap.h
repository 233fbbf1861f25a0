#pragma once
#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "device/cuda/cuda_memory.h"
#include "kernels/cuda/swap_blocks.h"
#include "moerun/device.h"

namespace moerun {

/// Pinned host memory for keys and values of preempted sequences. Taken a piece at a time when it is first
/// used, because pinning memory is slow and most jobs need little of it. Thread contract: the engine thread.
class SwapSpace {
 public:
  SwapSpace(cudaStream_t stream, int64_t num_host_blocks);
  /// As Device::swap_blocks.
  void swap(std::span<const KvLayer> cache, std::span<const int32_t> pairs, Device::Swap way);

 private:
  static constexpr size_t kEntries = 256;  // of one launch
  char* host_block(int64_t block, size_t bytes);

  cudaStream_t stream_;
  int64_t num_host_blocks_;
  std::vector<std::unique_ptr<PinnedBuffer>> chunks_;
  std::array<PinnedBuffer, 2> entries_;
  std::array<Event, 2> done_;
  size_t next_ = 0;
};

}  // namespace moerun
