#pragma once
#include <cstdint>
#include <vector>

namespace moerun {

/// A set of rows of an input: one bit a row, so a billion rows take 120 MiB and a million are nothing.
class RowSet {
 public:
  explicit RowSet(uint64_t num_rows) : words_((num_rows + 63) / 64), num_rows_(num_rows) {}

  uint64_t num_rows() const { return num_rows_; }
  uint64_t size() const { return size_; }
  bool contains(uint64_t row) const { return row < num_rows_ && (words_[row / 64] >> (row % 64) & 1) != 0; }
  /// False when the row is in it already. `row` is below num_rows().
  bool insert(uint64_t row) {
    uint64_t& word = words_[row / 64];
    const uint64_t bit = uint64_t{1} << (row % 64);
    if (word & bit) return false;
    word |= bit;
    ++size_;
    return true;
  }

  /// `row` is below num_rows().
  void erase(uint64_t row) {
    size_ -= contains(row);
    words_[row / 64] &= ~(uint64_t{1} << (row % 64));
  }

 private:
  std::vector<uint64_t> words_;
  uint64_t num_rows_, size_ = 0;
};

}  // namespace moerun
