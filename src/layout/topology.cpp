#include "layout/topology.h"

#include <fmt/format.h>

#include "moerun/error.h"

namespace moerun {

Coordinates coordinates_of(const Layout& layout, int world_rank) {
  return {.replica = world_rank / layout.ep_size(),
          .data = world_rank / layout.tensor % layout.data,
          .tensor = world_rank % layout.tensor};
}

int world_rank_of(const Layout& layout, const Coordinates& at) {
  return (at.replica * layout.data + at.data) * layout.tensor + at.tensor;
}

int ep_rank_of(const Layout& layout, int world_rank) { return world_rank % layout.ep_size(); }

std::vector<int> leaders_of(const Layout& layout) {
  std::vector<int> leaders;
  for (int rank = 0; rank < layout.world_size(); rank += layout.tensor) leaders.push_back(rank);
  return leaders;
}

Layout make_layout(int world_size, int tensor, int data, int replicas) {
  if (tensor < 1 || replicas < 1 || data < 0) {
    throw BadInput(fmt::format("parallel: tensor {}, data {}, replicas {}: each must be 1 or more", tensor,
                               data, replicas));
  }
  if (data == 0) {
    if (world_size % (tensor * replicas) != 0) {
      throw BadInput(fmt::format("parallel: {} ranks are no multiple of tensor {} × replicas {}", world_size,
                                 tensor, replicas));
    }
    data = world_size / (tensor * replicas);
  }
  const Layout layout{.tensor = tensor, .data = data, .replicas = replicas};
  if (layout.world_size() != world_size) {
    const int engines = world_size / (tensor * data);
    const bool whole = engines > 0 && engines * tensor * data == world_size;
    throw BadInput(
        fmt::format("parallel: tensor {} × data {} × replicas {} needs {} ranks, and {} were started{}",
                    tensor, data, replicas, layout.world_size(), world_size,
                    whole ? fmt::format(" (parallel.replicas: {} gives each of them a part)", engines) : ""));
  }
  return layout;
}

namespace {

/// The part of `count` things that rank `rank` of `ranks` has.
int share_of(int count, int ranks, int rank) { return count / ranks + (rank < count % ranks ? 1 : 0); }

}  // namespace

ExpertMap::ExpertMap(int num_experts, int ep_size, int num_redundant)
    : rank_of_(static_cast<size_t>(num_experts)),
      slot_of_(static_cast<size_t>(num_experts)),
      experts_of_(static_cast<size_t>(ep_size)),
      num_redundant_(num_redundant) {
  int expert = 0;
  for (int rank = 0; rank < ep_size; ++rank) {
    const int count = share_of(num_experts, ep_size, rank);
    for (int slot = 0; slot < count; ++slot, ++expert) {
      rank_of_[static_cast<size_t>(expert)] = rank;
      slot_of_[static_cast<size_t>(expert)] = slot;
      experts_of_[static_cast<size_t>(rank)].push_back(expert);
    }
  }
}

int ExpertMap::num_redundant_slots(int ep_rank) const {
  return share_of(num_experts() + num_redundant_, ep_size(), ep_rank) -
         static_cast<int>(experts_of(ep_rank).size());
}

std::vector<int32_t> ExpertMap::local_slots(int ep_rank) const {
  std::vector<int32_t> slots(rank_of_.size(), -1);
  for (const int32_t expert : experts_of(ep_rank)) slots[static_cast<size_t>(expert)] = slot_of(expert);
  return slots;
}

}  // namespace moerun
