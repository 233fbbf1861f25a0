#pragma once
#include <cstdint>
#include <span>
#include <vector>

namespace moerun {

/// Which of a rank's own tokens go to which rank, and where their partial sums are when they come back: in
/// the order of `tokens`. Pure arithmetic.
struct TokenLists {
  std::vector<int32_t> tokens;  ///< own tokens that go to rank 0, then those to rank 1, …, each ascending
  std::vector<int32_t> count;   ///< [ranks] of them
  std::vector<int32_t> row_of;  ///< [ranks, n] place in `tokens`; 0 where a token does not go
};

/// `ids` [n, k] global expert ids, `rank_of` [num_experts]. A token is listed once for each rank that holds
/// one of its experts.
void list_tokens(std::span<const int32_t> ids, int32_t k, std::span<const int32_t> rank_of, int32_t ranks,
                 TokenLists& lists);

}  // namespace moerun
