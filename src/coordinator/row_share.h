#pragma once
#include <algorithm>
#include <cstddef>
#include <cstdint>

namespace moerun {

/// Rows that a group gets at the most when it asks: half of an even share of what is left, so that the groups
/// end together.
inline uint64_t row_share(uint64_t rows_left, size_t num_groups) {
  return std::max<uint64_t>(rows_left / (2 * num_groups), 1);
}

}  // namespace moerun
