#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include "layout/topology.h"
#include "moerun/expert_turn.h"

namespace moerun {

/// A redundant expert: `expert` is also in slot `slot` of rank `rank`, which computes it in `turns` of its
/// kExpertTurns turns.
struct ExpertCopy {
  int32_t expert = 0, rank = 0, slot = 0, turns = 0;
  bool operator==(const ExpertCopy&) const = default;
};

/// Which experts of a layer have copies where, from the tokens that each expert was given so far
/// [num_experts]. Every expert stays at home; copies go to the slots that `map` has beyond those. The same on
/// every rank that asks with the same counts.
///
/// While a rank carries over 1.01 times the mean: the busiest one that can hands turns to a rank that has
/// less to do and holds one of its experts; where none can, it fills a free slot of such a rank with the
/// expert that brings both nearest to each other. Greedy, and near enough to the best:
/// tests/unit/expert_copies_test.cpp says what it reaches.
std::vector<ExpertCopy> place_copies(const ExpertMap& map, std::span<const uint64_t> tokens_of_expert);

/// [num_experts, kExpertTurns]: the rank that computes an expert in each turn.
std::vector<int32_t> ranks_of_turns(const ExpertMap& map, std::span<const ExpertCopy> copies);

/// [num_experts]: slot on `ep_rank` with these copies, −1 where the expert is not there.
std::vector<int32_t> slots_with_copies(const ExpertMap& map, std::span<const ExpertCopy> copies, int ep_rank);

}  // namespace moerun
