#pragma once
#include <cstdint>
#include <vector>

namespace moerun {

/// What the GPU exchanges are made for.
struct ExchangeOptions {
  std::vector<int32_t> rank_of;  ///< [num_experts] the rank that computes an expert
  bool copies = false;           ///< experts may have some, of which ExpertSlots::rank_of_turn tells
  int32_t max_tokens = 0;        ///< a rank may bring in one step
  int32_t hidden = 0, num_experts_per_tok = 0;
};

/// Whether the expert map gives each of a power of two of ranks one aligned subtree of the tree over expert
/// ids: then a token has one partial sum a rank, and the upper levels of the tree are a tree over ranks.
bool one_subtree_a_rank(const std::vector<int32_t>& rank_of, int ranks);

}  // namespace moerun
