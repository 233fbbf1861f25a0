#pragma once
#include <cstddef>
#include <cstdint>
#include <numeric>
#include <vector>

namespace moerun {

/// Blocks, each free or held: by sequences that use it, and by what only keeps it for others to come.
/// Integers alone. Thread contract: one thread.
class BlockPool {
 public:
  explicit BlockPool(int64_t num_blocks)
      : free_(static_cast<size_t>(num_blocks)), holders_(static_cast<size_t>(num_blocks)) {
    std::iota(free_.rbegin(), free_.rend(), 0);  // block 0 is handed out first
  }

  int64_t num_blocks() const { return static_cast<int64_t>(holders_.size()); }
  int64_t num_free() const { return static_cast<int64_t>(free_.size()); }
  /// Blocks that are used; those that are kept alone are neither used nor free.
  int64_t num_used() const { return num_used_; }
  int32_t num_users(int32_t block) const { return holders_[static_cast<size_t>(block)].users; }
  /// A free block, which then has one user; there must be one.
  int32_t take() {
    const int32_t block = free_.back();
    free_.pop_back();
    use(block);
    return block;
  }
  /// One user more of a block that is held.
  void use(int32_t block) { num_used_ += holders_[static_cast<size_t>(block)].users++ == 0; }
  /// Keeps a block that is held.
  void keep(int32_t block) { ++holders_[static_cast<size_t>(block)].keepers; }
  /// One user less of each; those that nobody holds are free.
  void give_back(std::vector<int32_t>& blocks) {
    for (auto block = blocks.rbegin(); block != blocks.rend(); ++block) {
      Holders& holders = holders_[static_cast<size_t>(*block)];
      num_used_ -= --holders.users == 0;
      if (holders.users + holders.keepers == 0) free_.push_back(*block);
    }
    blocks.clear();
  }
  /// Undoes `keep` of each.
  void let_go(std::vector<int32_t>& blocks) {
    for (auto block = blocks.rbegin(); block != blocks.rend(); ++block) {
      Holders& holders = holders_[static_cast<size_t>(*block)];
      if (--holders.keepers + holders.users == 0) free_.push_back(*block);
    }
    blocks.clear();
  }

 private:
  struct Holders {
    int32_t users = 0, keepers = 0;
  };
  std::vector<int32_t> free_;
  std::vector<Holders> holders_;
  int64_t num_used_ = 0;
};

}  // namespace moerun
