#pragma once
#include <cstdint>
#include <vector>

#include "engine/block_pool.h"

namespace moerun {

/// What a sequence holds of the cache: block i has the keys and values of positions [i · block_size, …).
struct KvBlocks {
  std::vector<int32_t> device;
  std::vector<int32_t> host;  ///< where those of a preempted sequence are
};

/// What moves before a step, in this order: [device block, host block]… that leave, and that come back;
/// [from block, to block, tokens]…, the first tokens of a block that become those of another.
struct KvMoves {
  std::vector<int32_t> swap_out, swap_in, copies;
};

/// The one owner of the key/value cache's blocks, on the device and of preempted sequences in the host's
/// memory: integers alone. Blocks are counted by reference, so that sequences can hold the same; one is free
/// again when nobody holds it. Thread contract: the leader's engine thread.
class KvCache {
 public:
  struct Size {
    int32_t block_size = 64;  ///< tokens
    int64_t num_blocks = 0;
    int64_t num_host_blocks = 0;
  };
  explicit KvCache(const Size& size)
      : block_size_(size.block_size), blocks_(size.num_blocks), host_blocks_(size.num_host_blocks) {}

  int32_t block_size() const { return block_size_; }
  int64_t num_blocks() const { return blocks_.num_blocks(); }
  int64_t num_free() const { return blocks_.num_free(); }
  int64_t num_used() const { return blocks_.num_used(); }
  int64_t blocks_for(int64_t tokens) const { return (tokens + block_size_ - 1) / block_size_; }

  /// Leading blocks that others use too.
  size_t num_shared(const KvBlocks& blocks) const;

  /// A step's moves are those since this.
  void begin_step();
  const KvMoves& moves() const { return moves_; }

  /// Room for `tokens` tokens in all. False, and nothing changes, when too few blocks are free.
  bool grow(KvBlocks& blocks, int32_t tokens);
  /// Holds nothing any more.
  void release(KvBlocks& blocks);
  /// Moves the keys and values of the first `tokens` tokens to the host's memory, but for leading blocks that
  /// others use too: they would stay where they are, so they stay held. False, and nothing changes, when it
  /// has too little room.
  bool swap_out(KvBlocks& blocks, int32_t tokens);
  /// Holds no more than the leading blocks that others use too; returns the tokens that have room there.
  int32_t release_own(KvBlocks& blocks);
  /// Brings back what is in the host's memory, if anything is. False, and nothing changes, when too few
  /// blocks are free.
  bool swap_in(KvBlocks& blocks);
  /// `to`, which holds nothing, takes over the first `tokens` tokens of `from`, which earlier steps have
  /// computed: whole blocks are held by both, what a block has beyond is copied. False, and nothing changes,
  /// when the copy finds no free block.
  bool share(const KvBlocks& from, int32_t tokens, KvBlocks& to);
  /// `kept`, which holds nothing, keeps the first `tokens` tokens of `blocks` for others to come.
  void keep(const KvBlocks& blocks, int32_t tokens, KvBlocks& kept);
  /// Keeps nothing any more.
  void let_go(KvBlocks& kept) { blocks_.let_go(kept.device); }

 private:
  /// Gives back the device's blocks from number `first` on.
  void give_back_from(KvBlocks& blocks, size_t first);

  int32_t block_size_;
  BlockPool blocks_, host_blocks_;
  KvMoves moves_;
  std::vector<int32_t> copied_;  // what the step's copies read: held until they are done
};

}  // namespace moerun
