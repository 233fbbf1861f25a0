#pragma once
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "engine/kv_cache.h"
#include "moerun/plan.h"
#include "moerun/routed_shape.h"

namespace moerun {

/// The experts that each token in the cache was routed to (`output.routed_experts`), in the host's memory, by
/// the cache's own blocks: what a step moves, copies and writes there, this does too. So whatever becomes of
/// a sequence's keys and values (shared with others, copied, preempted, brought back, computed again), the
/// ids of its tokens are where they are. Memory: token_bytes() for each token of the blocks that were ever
/// used. Thread contract: the leader's engine thread.
class RoutedStore {
 public:
  RoutedStore(const RoutedShape& shape, const KvCache::Size& size);

  const RoutedShape& shape() const { return shape_; }
  /// What a step did, with the ids of its tokens [plan.num_tokens()] of RoutedShape. Each step, in order.
  void apply(const StepPlan& plan, std::span<const uint8_t> routed);
  /// Those of positions [begin, end) of a sequence, all of them computed and on the device.
  std::vector<uint8_t> read(const KvBlocks& blocks, int32_t begin, int32_t end) const;
  /// What stands for `tokens` tokens that have none.
  std::vector<uint8_t> none(size_t tokens) const { return std::vector<uint8_t>(tokens * token_bytes_, 0xff); }

 private:
  using Block = std::unique_ptr<uint8_t[]>;  // [block_size] of RoutedShape; null until it is used

  uint8_t* written(int32_t block);

  RoutedShape shape_;
  size_t token_bytes_, block_size_;
  std::vector<Block> blocks_, host_blocks_;
};

}  // namespace moerun
