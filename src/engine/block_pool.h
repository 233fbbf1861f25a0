#pragma once
#include <cstddef>
#include <cstdint>
#include <numeric>
#include <vector>

namespace moerun {

/// The free blocks of the key/value cache: integers alone. Thread contract: one thread.
class BlockPool {
 public:
  explicit BlockPool(int64_t num_blocks) : num_blocks_(num_blocks), free_(static_cast<size_t>(num_blocks)) {
    std::iota(free_.rbegin(), free_.rend(), 0);  // block 0 is handed out first
  }

  int64_t num_blocks() const { return num_blocks_; }
  int64_t num_free() const { return static_cast<int64_t>(free_.size()); }
  /// A free block; there must be one.
  int32_t take() {
    const int32_t block = free_.back();
    free_.pop_back();
    return block;
  }
  void give_back(std::vector<int32_t>& blocks) {
    free_.insert(free_.end(), blocks.rbegin(), blocks.rend());
    blocks.clear();
  }

 private:
  int64_t num_blocks_;
  std::vector<int32_t> free_;
};

}  // namespace moerun
