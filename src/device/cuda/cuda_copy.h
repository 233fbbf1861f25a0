#pragma once
#include <array>
#include <span>

#include "device/cuda/cuda_memory.h"
#include "moerun/device.h"

namespace moerun {

/// Copies rows between blocks of the key/value cache. Thread contract: the engine thread.
class RowCopies {
 public:
  explicit RowCopies(cudaStream_t stream);
  /// As Device::copy_rows.
  void copy(std::span<const KvLayer> cache, std::span<const int32_t> copies);

 private:
  static constexpr size_t kEntries = 1024;  // of one launch

  cudaStream_t stream_;
  std::array<PinnedBuffer, 2> entries_;  // which the device reads; used in turn
  std::array<Event, 2> done_;
  size_t next_ = 0;
};

}  // namespace moerun
