#pragma once
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <span>
#include <vector>

#include "moerun/device.h"

namespace moerun {

/// What a device in the host's memory swapped out: a slot's parts behind each other. Thread contract: the
/// device's.
class HostSlots {
 public:
  /// Out or in again; in: of the parts that went out.
  void swap(int32_t slot, std::span<const Tensor> parts, Device::Swap way) {
    const auto index = static_cast<size_t>(slot);
    if (slots_.size() <= index) slots_.resize(index + 1);
    std::vector<char>& host = slots_[index];
    size_t at = 0;
    for (const Tensor& part : parts) {
      host.resize(std::max(host.size(), at + part.bytes()));
      if (way == Device::Swap::out)
        std::memcpy(host.data() + at, part.data, part.bytes());
      else
        std::memcpy(part.data, host.data() + at, part.bytes());
      at += part.bytes();
    }
  }

 private:
  std::vector<std::vector<char>> slots_;
};

}  // namespace moerun
