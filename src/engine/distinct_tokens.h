#pragma once
#include <algorithm>
#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "base/common_prefix.h"
#include "coordinator/messages.h"

namespace moerun {

/// Counts the tokens of a trie over a group's prompts, which come in an order in which those that begin alike
/// meet. Thread contract: the leader's engine thread.
class DistinctTokens {
 public:
  void add(std::span<const int32_t> prompt, const RowPlace& place) {
    // Texts in their order are tokens nearly in theirs: the neighbour may be some rows before.
    size_t alike = 0;
    for (const std::vector<int32_t>& before : last_)
      alike = std::max(alike, common_prefix<int32_t>(prompt, before));
    // The row before went to another group, whose tokens these are.
    if (place.ordered && !place.follows)
      alike = std::max(alike, static_cast<size_t>(place.alike * static_cast<double>(prompt.size())));
    count_ += static_cast<int64_t>(prompt.size() - alike);
    last_[next_++ % last_.size()].assign(prompt.begin(), prompt.end());
  }
  int64_t count() const { return count_; }
  int64_t rows() const { return static_cast<int64_t>(next_); }

 private:
  std::array<std::vector<int32_t>, 4> last_;
  size_t next_ = 0;
  int64_t count_ = 0;
};

}  // namespace moerun
