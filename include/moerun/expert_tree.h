#pragma once
#include <bit>
#include <cstdint>
#include <span>
#include <vector>

namespace moerun {

/// The order in which a token's expert outputs are summed (invariant 1).
///
/// Take the complete binary tree over expert ids 0 … 2^m − 1. A leaf is weight·y of that expert; a node is
/// left + right where both halves hold an expert of this token, else the half that does. Every value is
/// rounded to the model's dtype. The sum depends on the token's experts alone, not on where they live; and a
/// rank that holds whole subtrees can send one value for each.

/// Names an expert of a token for its place in the tree alone: another rank computes it, even where a copy of
/// it is here. −1 stays free for no expert at all.
constexpr int32_t elsewhere(int32_t id) { return -2 - id; }
/// The place in the tree that an id stands for, computed here or not; −1: none.
constexpr int32_t tree_position(int32_t id) { return id < -1 ? -2 - id : id; }

/// The level at which two different ids meet: the height of their lowest common ancestor.
constexpr int32_t meeting_level(int32_t a, int32_t b) {
  return 32 - std::countl_zero(static_cast<uint32_t>(a ^ b));
}

/// Where the smallest subtree that holds ids[first … last) divides: [first, middle) is its left half,
/// [middle, last) its right. `ids` ascend and at least two are in the range.
int32_t split_of_subtree(std::span<const int32_t> ids, int32_t first, int32_t last);

/// One partial sum of a token: its experts first … last (positions in the ascending list of the token's ids)
/// as one subtree.
struct ExpertSpan {
  int32_t first = 0, last = 0;  ///< [first, last)
};

/// Cuts a token's ascending expert ids into the largest subtrees whose experts all live on the same rank.
/// `rank_of[i]` is the rank that computes ids[i]. Sender and receiver both call this, so nothing about it
/// travels. Appends to `spans`; the spans of one rank come out in ascending order.
void cut_into_spans(std::span<const int32_t> ids, std::span<const int32_t> rank_of,
                    std::vector<ExpertSpan>& spans);

}  // namespace moerun
