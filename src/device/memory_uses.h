#pragma once
#include <string>
#include <vector>

#include "moerun/device.h"

namespace moerun {

/// Adds up allocations by name, in the order of first use: the lines of a memory table.
class MemoryUses {
 public:
  void add(const std::string& what, size_t bytes) {
    for (MemoryUse& use : uses_)
      if (use.what == what) {
        use.bytes += bytes;
        return;
      }
    uses_.push_back({what, bytes});
  }
  const std::vector<MemoryUse>& table() const { return uses_; }

 private:
  std::vector<MemoryUse> uses_;
};

}  // namespace moerun
