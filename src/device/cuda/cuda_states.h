#pragma once
#include <memory>
#include <span>
#include <vector>

#include "device/cuda/cuda_memory.h"
#include "moerun/device.h"

namespace moerun {

/// Moves the states of gated delta nets: between slots, and to pinned memory of the host and back. A layer's
/// part of a slot is megabytes, so the copy engines take each part by itself. Thread contract: the engine
/// thread.
class SlotCopies {
 public:
  explicit SlotCopies(cudaStream_t stream) : stream_(stream) {}

  /// As Device::swap_states. Host memory of a slot is taken when it is first used. Throws Error where the
  /// host has none left.
  void swap(std::span<const DeltaState> states, std::span<const int32_t> pairs, Device::Swap way);
  /// As Device::copy_states.
  void copy(std::span<const DeltaState> states, std::span<const int32_t> pairs);

 private:
  char* host_slot(int32_t slot, size_t bytes);

  cudaStream_t stream_;
  std::vector<std::unique_ptr<PinnedBuffer>> host_;  // by host slot
};

}  // namespace moerun
