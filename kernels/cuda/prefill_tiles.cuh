#pragma once
// How the work of prefill attention is cut into tiles, and in which order the tiles are numbered.
#include "kernels/cuda/common.cuh"

namespace moerun::cuda {

/// The chunks of a step that prefill, and how they are cut.
struct Chunks {
  const int32_t *cu_seqlens_q, *context_lens;
  int32_t num_seqs, num_kv_heads;
  int32_t tokens_a_tile;
  int32_t max_levels;  // tiles of the longest chunk for one key head
};

/// Up to tokens_a_tile positions of a chunk and one key head.
struct Tile {
  int32_t kv_head, sequence;
  int32_t first_token, num_tokens, first_position, context;
  int32_t num_keys;  // that the last position sees; 0: there are no more tiles
};

/// The tiles in falling order of their number within their chunk, so of their length where chunks begin
/// alike. Only tiles that exist have a number. A whole warp walks through them together.
class Tiles {
 public:
  __device__ Tiles(const Chunks& chunks, int lane)
      : chunks_(chunks), lane_(lane), level_(chunks.max_levels) {}

  /// Tile number `index`, not below those asked for before. num_keys == 0: there is none.
  __device__ Tile at(int32_t index) {
    while (index >= end_) {
      if (level_ == 0) return {};
      --level_;
      begin_ = end_;
      for (int32_t first = 0; first < chunks_.num_seqs; first += kWarpSize)
        end_ += chunks_.num_kv_heads * __popc(reaching(first));
    }
    Tile tile;
    tile.kv_head = (index - begin_) % chunks_.num_kv_heads;
    int32_t rank = (index - begin_) / chunks_.num_kv_heads, first = 0;
    uint32_t lanes = reaching(first);
    while (rank >= __popc(lanes)) {
      rank -= __popc(lanes);
      first += kWarpSize;
      lanes = reaching(first);
    }
    const bool chosen = (lanes >> lane_ & 1) && __popc(lanes & ((1u << lane_) - 1)) == rank;
    tile.sequence = first + __ffs(__ballot_sync(kFullMask, chosen)) - 1;
    const int32_t begin = chunks_.cu_seqlens_q[tile.sequence], end = chunks_.cu_seqlens_q[tile.sequence + 1];
    tile.context = chunks_.context_lens[tile.sequence];
    tile.first_token = begin + level_ * chunks_.tokens_a_tile;
    tile.num_tokens = min(chunks_.tokens_a_tile, end - tile.first_token);
    tile.first_position = tile.context - (end - tile.first_token);
    tile.num_keys = tile.first_position + tile.num_tokens;
    return tile;
  }

 private:
  /// Which of the sequences [first, first + 32) have a tile at this level.
  __device__ uint32_t reaching(int32_t first) const {
    const int32_t sequence = first + lane_;
    return __ballot_sync(kFullMask, sequence < chunks_.num_seqs &&
                                        chunks_.cu_seqlens_q[sequence + 1] - chunks_.cu_seqlens_q[sequence] >
                                            level_ * chunks_.tokens_a_tile);
  }

  const Chunks& chunks_;
  int lane_;
  int32_t level_, begin_ = 0, end_ = 0;  // the level's tiles are [begin_, end_)
};

}  // namespace moerun::cuda
