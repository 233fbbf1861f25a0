#pragma once
#include <cstddef>
#include <vector>

#include "moerun/device.h"

namespace moerun {

/// The host's side of a buffer in device memory: the memory itself where the host can address it, else a
/// copy. Thread contract: the engine thread.
class HostSide {
 public:
  /// Room for `bytes`.
  HostSide(Device& device, size_t bytes) : device_(device), copy_(device.host_memory() ? 0 : bytes) {}

  /// What the device holds, for the host to read; waits for the device.
  const void* read(const void* device_memory, size_t bytes) {
    if (device_.host_memory()) return device_memory;
    if (bytes > 0) device_.copy_to_host(copy_.data(), device_memory, bytes);
    return copy_.data();
  }
  /// Where the host writes what `deliver` then brings to the device.
  void* write(void* device_memory) { return device_.host_memory() ? device_memory : copy_.data(); }
  void deliver(void* device_memory, size_t bytes) {
    if (!device_.host_memory() && bytes > 0) device_.copy_to_device(device_memory, copy_.data(), bytes);
  }

 private:
  Device& device_;
  std::vector<char> copy_;
};

}  // namespace moerun
