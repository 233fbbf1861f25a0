#include "layout/expert_copies.h"

#include <algorithm>
#include <numeric>
#include <optional>

namespace moerun {

namespace {

/// Loads are tokens × turns, so that all arithmetic is in whole numbers.
class Placement {
 public:
  Placement(const ExpertMap& map, std::span<const uint64_t> tokens)
      : tokens_(tokens.begin(), tokens.end()),
        turns_(static_cast<size_t>(map.num_experts()),
               std::vector<int32_t>(static_cast<size_t>(map.ep_size()), 0)),
        held_(turns_.size(), std::vector<bool>(static_cast<size_t>(map.ep_size()), false)),
        load_(static_cast<size_t>(map.ep_size()), 0) {
    for (int expert = 0; expert < map.num_experts(); ++expert) {
      const auto e = static_cast<size_t>(expert), home = static_cast<size_t>(map.rank_of(expert));
      turns_[e][home] = kExpertTurns;
      held_[e][home] = true;
      load_[home] += tokens_[e] * kExpertTurns;
    }
    for (int rank = 0; rank < map.ep_size(); ++rank) free_slots_.push_back(map.num_redundant_slots(rank));
    mean_ = std::accumulate(load_.begin(), load_.end(), int64_t{0}) / map.ep_size();
  }

  void balance() {
    while (step(Way::along_copy) || step(Way::new_copy)) {
    }
  }

  int32_t turns(size_t expert, size_t rank) const { return turns_[expert][rank]; }

 private:
  enum class Way { along_copy, new_copy };
  struct Move {
    size_t expert = 0, from = 0, to = 0;
    int64_t turns = 0, load = 0;
  };

  /// Lets the busiest rank that can make a move of one kind make its largest. False: no overloaded one can.
  bool step(Way way) {
    std::vector<size_t> overloaded;
    for (size_t rank = 0; rank < load_.size(); ++rank)
      if (load_[rank] * 100 > mean_ * 101) overloaded.push_back(rank);
    std::stable_sort(overloaded.begin(), overloaded.end(),
                     [&](size_t a, size_t b) { return load_[a] > load_[b]; });
    for (const size_t from : overloaded) {
      std::optional<Move> best;
      for (size_t expert = 0; expert < turns_.size(); ++expert) {
        for (size_t to = 0; to < load_.size(); ++to) {
          const std::optional<Move> move = move_of(way, from, expert, to);
          // Of equal moves the hottest expert's: what it can hand on later is most.
          if (move && (!best || move->load > best->load ||
                       (move->load == best->load && tokens_[expert] > tokens_[best->expert])))
            best = move;
        }
      }
      if (!best) continue;
      make(*best);
      return true;
    }
    return false;
  }

  /// As many turns as bring both ranks halfway to each other, one at least; none where `to` would then have
  /// as much to do as `from` has now. So every move makes the sum of the squared loads smaller, and there is
  /// an end. `to` may well come to more than the mean: it hands on.
  std::optional<Move> move_of(Way way, size_t from, size_t expert, size_t to) const {
    const int64_t one = tokens_[expert];
    if (one == 0 || turns_[expert][from] == 0 || load_[to] >= load_[from]) return std::nullopt;
    if (held_[expert][to] != (way == Way::along_copy)) return std::nullopt;
    if (way == Way::new_copy && free_slots_[to] == 0) return std::nullopt;
    const int64_t turns = std::clamp<int64_t>((load_[from] - load_[to]) / 2 / one, 1, turns_[expert][from]);
    if (load_[to] + turns * one >= load_[from]) return std::nullopt;
    return Move{.expert = expert, .from = from, .to = to, .turns = turns, .load = turns * one};
  }

  void make(const Move& move) {
    turns_[move.expert][move.from] -= static_cast<int32_t>(move.turns);
    turns_[move.expert][move.to] += static_cast<int32_t>(move.turns);
    load_[move.from] -= move.load;
    load_[move.to] += move.load;
    if (held_[move.expert][move.to]) return;
    held_[move.expert][move.to] = true;
    --free_slots_[move.to];
  }

  std::vector<int64_t> tokens_;              // [num_experts]
  std::vector<std::vector<int32_t>> turns_;  // [num_experts][ep_size]
  std::vector<std::vector<bool>> held_;      // [num_experts][ep_size]
  std::vector<int64_t> load_;                // [ep_size]
  std::vector<int> free_slots_;              // [ep_size]
  int64_t mean_ = 0;
};

}  // namespace

std::vector<ExpertCopy> place_copies(const ExpertMap& map, std::span<const uint64_t> tokens_of_expert) {
  Placement placement(map, tokens_of_expert);
  placement.balance();
  std::vector<ExpertCopy> copies;
  for (int rank = 0; rank < map.ep_size(); ++rank) {
    auto slot = static_cast<int32_t>(map.experts_of(rank).size());
    for (int expert = 0; expert < map.num_experts(); ++expert) {
      const int32_t turns = placement.turns(static_cast<size_t>(expert), static_cast<size_t>(rank));
      if (map.rank_of(expert) != rank && turns > 0)
        copies.push_back({.expert = expert, .rank = rank, .slot = slot++, .turns = turns});
    }
  }
  return copies;
}

std::vector<int32_t> ranks_of_turns(const ExpertMap& map, std::span<const ExpertCopy> copies) {
  std::vector<int32_t> ranks;
  for (const int32_t home : map.ranks()) ranks.insert(ranks.end(), kExpertTurns, home);
  std::vector<int32_t> next(static_cast<size_t>(map.num_experts()), 0);
  for (const ExpertCopy& copy : copies) {
    int32_t& at = next[static_cast<size_t>(copy.expert)];
    std::fill_n(ranks.begin() + copy.expert * kExpertTurns + at, copy.turns, copy.rank);
    at += copy.turns;
  }
  return ranks;
}

std::vector<int32_t> slots_with_copies(const ExpertMap& map, std::span<const ExpertCopy> copies,
                                       int ep_rank) {
  std::vector<int32_t> slots = map.local_slots(ep_rank);
  for (const ExpertCopy& copy : copies)
    if (copy.rank == ep_rank) slots[static_cast<size_t>(copy.expert)] = copy.slot;
  return slots;
}

}  // namespace moerun
