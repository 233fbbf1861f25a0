#pragma once
#include <cstddef>
#include <cstdint>
#include <vector>

namespace moerun {

/// How the ranks of a job are arranged: world = replicas × data × tensor, tensor innermost. Pure arithmetic;
/// no rank talks to another here.
struct Layout {
  int tensor = 1, data = 1, replicas = 1;

  int ep_size() const { return data * tensor; }  ///< ranks of one engine (replica)
  int world_size() const { return replicas * ep_size(); }
};

/// Where one rank stands in the layout.
struct Coordinates {
  int replica = 0, data = 0, tensor = 0;
};

Coordinates coordinates_of(const Layout& layout, int world_rank);
int world_rank_of(const Layout& layout, const Coordinates& at);
/// A rank's number in its engine: data · tensor size + tensor.
int ep_rank_of(const Layout& layout, int world_rank);
/// World ranks of the leaders (tensor rank 0) of every data-parallel group, replica by replica.
std::vector<int> leaders_of(const Layout& layout);

/// Which layout `world_size` ranks make. `data` 0 stands for what is left. Throws BadInput, naming the ranks
/// that the layout needs, when it does not come out.
Layout make_layout(int world_size, int tensor, int data, int replicas);

/// Where each expert is at home: expert → (ep rank, slot there). An indirection that nothing may assume to be
/// contiguous. The map made here: blocks of ascending ids, one a rank, whose sizes differ by at most one (the
/// larger ones first). With power-of-two counts each block is one aligned subtree of the tree over expert ids
/// (moerun/expert_tree.h), so that a rank returns one partial sum a token.
///
/// Behind its own experts a rank may have slots for redundant ones, copies of other ranks' experts; which,
/// each layer decides for itself (comm/expert_copies.h).
class ExpertMap {
 public:
  /// Ranks beyond the number of experts hold none. `num_redundant` slots more are shared out so that the
  /// ranks' numbers of slots differ by at most one.
  ExpertMap(int num_experts, int ep_size, int num_redundant = 0);

  int num_experts() const { return static_cast<int>(rank_of_.size()); }
  int ep_size() const { return static_cast<int>(experts_of_.size()); }
  int num_redundant() const { return num_redundant_; }
  /// Redundant experts that a rank has room for in each layer, in the slots behind its own experts'.
  int num_redundant_slots(int ep_rank) const;
  int rank_of(int expert) const { return rank_of_[static_cast<size_t>(expert)]; }
  int slot_of(int expert) const { return slot_of_[static_cast<size_t>(expert)]; }
  const std::vector<int32_t>& ranks() const { return rank_of_; }  ///< [num_experts]
  /// The experts of a rank in slot order.
  const std::vector<int32_t>& experts_of(int ep_rank) const {
    return experts_of_[static_cast<size_t>(ep_rank)];
  }
  /// [num_experts] slot on `ep_rank`, −1 when the expert lives elsewhere (ExpertSlots::host_local_slot).
  std::vector<int32_t> local_slots(int ep_rank) const;

 private:
  std::vector<int32_t> rank_of_, slot_of_;        // [num_experts]
  std::vector<std::vector<int32_t>> experts_of_;  // [ep_size]
  int num_redundant_;
};

}  // namespace moerun
