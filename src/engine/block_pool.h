#pragma once
#include <cstddef>
#include <cstdint>
#include <numeric>
#include <vector>

namespace moerun {

/// Blocks, each free or held by a number of owners: integers alone. Thread contract: one thread.
class BlockPool {
 public:
  explicit BlockPool(int64_t num_blocks)
      : free_(static_cast<size_t>(num_blocks)), holders_(static_cast<size_t>(num_blocks)) {
    std::iota(free_.rbegin(), free_.rend(), 0);  // block 0 is handed out first
  }

  int64_t num_blocks() const { return static_cast<int64_t>(holders_.size()); }
  int64_t num_free() const { return static_cast<int64_t>(free_.size()); }
  int32_t num_holders(int32_t block) const { return holders_[static_cast<size_t>(block)]; }
  /// A free block, which then has one holder; there must be one.
  int32_t take() {
    const int32_t block = free_.back();
    free_.pop_back();
    holders_[static_cast<size_t>(block)] = 1;
    return block;
  }
  /// One holder more of a block that has some.
  void hold(int32_t block) { ++holders_[static_cast<size_t>(block)]; }
  /// One holder less of each; those without any are free.
  void give_back(std::vector<int32_t>& blocks) {
    for (auto block = blocks.rbegin(); block != blocks.rend(); ++block)
      if (--holders_[static_cast<size_t>(*block)] == 0) free_.push_back(*block);
    blocks.clear();
  }

 private:
  std::vector<int32_t> free_, holders_;
};

}  // namespace moerun
