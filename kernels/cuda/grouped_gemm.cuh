#pragma once
// What the two grouped GEMM kernels share: tiles, their order, the ring of stages.
#include "kernels/cuda/grouped_gemm.h"
#include "kernels/cuda/hopper.cuh"

namespace moerun::cuda {

constexpr int kGroupThreads = 128;               // a warpgroup
constexpr int kGemmThreads = 3 * kGroupThreads;  // producer, two consumers
constexpr int kConsumerWarps = 8;
constexpr int kBlockRows = PackedWeight::kBlockRows, kBlockK = PackedWeight::kBlockCols;
constexpr int kBlockBytes = kBlockRows * kBlockK * 2, kRowBytes = kBlockK * 2;
constexpr int kWorkSlots = 4;

/// One tile of one of the two products: some rows of weights times the tokens of a column tile.
struct Work {
  int32_t product = 0;  ///< 0: gate/up, 1: down, −1: no more
  int32_t slot = 0;     ///< local expert
  int32_t row_block = 0;
  int32_t row_begin = 0, rows = 0;  ///< sorted rows
  int32_t tile = 0;                 ///< index in the plan
  int32_t sharers = 0;              ///< tiles of its group, which read the same weights
};

/// A position in a ring of stages in shared memory.
template <int kStages>
struct Ring {
  uint32_t stage = 0, parity = 0;
  __device__ void advance() {
    if (++stage == kStages) stage = 0, parity ^= 1;
  }
};

struct Sizes {
  int32_t k_blocks, row_blocks;
};
/// Of a product in tiles of kTileRows weight rows.
template <int kTileRows>
__device__ Sizes sizes_of(const GroupedGemmArgs& args, int product) {
  return product == 0 ? Sizes{ceil_div(args.hidden, kBlockK), ceil_div(2 * args.intermediate, kTileRows)}
                      : Sizes{ceil_div(args.intermediate, kBlockK), ceil_div(args.hidden, kTileRows)};
}

/// A ticket's number among those of its product.
struct Place {
  int32_t product, number, row_blocks;
};
template <int kTileRows>
__device__ Place place_of(const GroupedGemmArgs& args, int32_t num_tiles, int32_t ticket) {
  const int32_t row_blocks = sizes_of<kTileRows>(args, 0).row_blocks;
  if (ticket < num_tiles * row_blocks) return {0, ticket, row_blocks};
  ticket -= num_tiles * row_blocks;
  const int32_t down_row_blocks = sizes_of<kTileRows>(args, 1).row_blocks;
  return {ticket < num_tiles * down_row_blocks ? 1 : -1, ticket, down_row_blocks};
}

/// The work there, but for what the plan says of the tile; `group` is that of tile number / row_blocks. The
/// tiles of a group share a pass over the weights: for each block of weight rows, all tiles of the group in
/// turn.
__device__ inline Work work_in_group(const Place& place, int32_t group) {
  const int32_t first = group / 16, sharers = group % 16;
  const int32_t in_group = place.number - first * place.row_blocks;
  return {.product = place.product,
          .row_block = in_group / sharers,
          .tile = first + in_group % sharers,
          .sharers = sharers};
}

__device__ __forceinline__ float silu(float v) { return __fdividef(v, 1.0f + __expf(-v)); }

}  // namespace moerun::cuda

namespace moerun {

constexpr int32_t kWideTileRows = 160;

/// The kernel of tile_rows == kWideTileRows.
void launch_grouped_gemm_wide(const GroupedGemmArgs& args, cudaStream_t stream);

}  // namespace moerun
