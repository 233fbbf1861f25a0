#pragma once
#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>

namespace moerun {

/// A (token, expert) pair in sorted order: `pair` = token · k + slot of the top-k list.
struct RoutedRow {
  int32_t pair = 0;
  float weight = 0;
};

/// How an expert's sorted rows are cut into nearly equal tiles.
struct MoeTiling {
  int32_t max_rows = 0;  ///< of a tile, a multiple of row_step and at least 64
  int32_t row_step = 0;  ///< a tile's rows are a multiple of it, but for an expert's last tile
};

/// Consecutive sorted rows of one expert that are computed as one column tile of the grouped GEMM. The tiles
/// of an expert come in groups of at most kMaxGroup, which share a pass over its weights.
struct MoeTile {
  static constexpr int32_t kMaxGroup = 8;
  int32_t slot = 0;       ///< the expert's index in this rank's matrices
  int32_t row_begin = 0;  ///< first sorted row
  int32_t rows = 0;
  int32_t group = 0;  ///< first tile of the group · 16 + tiles in the group
};

/// Counters on the device, zero-filled by each permutation.
struct MoeCounters {
  int32_t num_tiles = 0;
  int32_t num_rows = 0;     ///< pairs whose expert is local
  int32_t next_ticket = 0;  ///< the grouped GEMM's work counter
  int32_t unused = 0;
};

/// A step's routing in device memory: made by moe_permute, read by the grouped GEMM and by moe_combine. Not
/// owning.
struct MoePlan {
  RoutedRow* rows = nullptr;         ///< [max_tokens · k] by ascending expert id, then token
  MoeTile* tiles = nullptr;          ///< [max_tiles]
  int32_t* tile_arrivals = nullptr;  ///< [max_tiles] finished pieces of h, counted by the grouped GEMM
  MoeCounters* counters = nullptr;
  int32_t* chunk_counts = nullptr;  ///< [chunks, num_experts] scratch of moe_permute, as is
  uint32_t* ranked = nullptr;       ///< [max_tokens · k]: a pair's expert and its place among the chunk's
};

/// Bytes of workspace for steps of up to `max_tokens` tokens, and the plan laid out in such a workspace
/// (256-byte aligned).
size_t moe_plan_bytes(int64_t max_tokens, int32_t k, int32_t num_experts);
MoePlan moe_plan_in(void* workspace, int64_t max_tokens, int32_t k, int32_t num_experts);

struct MoePermuteArgs {
  const int32_t* topk_ids = nullptr;    ///< [n, k] global expert ids; negative: not computed here
  const float* topk_weights = nullptr;  ///< [n, k]
  const int32_t* local_slot = nullptr;  ///< [num_experts] the expert's index here, or −1
  int32_t num_tokens = 0;               ///< n
  int32_t k = 0;
  int32_t num_experts = 0;  ///< at most 512
  MoeTiling tiling;
  MoePlan plan;  ///< out
  unsigned long long* expert_tokens =
      nullptr;  ///< optional [num_experts]: += the tokens of each local expert
};

/// Sorts the pairs whose expert is local by (expert id, token), cuts them into tiles and resets the counters.
/// One launch up to 8,192 pairs, two above.
void launch_moe_permute(const MoePermuteArgs& args, cudaStream_t stream);

}  // namespace moerun
