#pragma once
// What the two grouped GEMM kernels share: tiles, their order, the ring of stages.
#include "kernels/cuda/grouped_gemm.h"
#include "kernels/cuda/wgmma.cuh"

namespace moerun::cuda {

constexpr int kGroupThreads = 128;               // a warpgroup
constexpr int kGemmThreads = 3 * kGroupThreads;  // producer, two consumers
constexpr int kConsumerWarps = 8;
constexpr int kBlockRows = PackedWeight::kBlockRows, kBlockK = PackedWeight::kBlockCols;
constexpr int kBlockBytes = kBlockRows * kBlockK * 2, kRowBytes = kBlockK * 2;
constexpr int kWorkSlots = 4;
/// Registers of a block of kGemmThreads as it starts: setmaxnreg redistributes these and no more.
constexpr int kGemmRegisters = 168 * kGemmThreads;

/// One tile of one of the two products: some rows of weights times the tokens of a column tile.
struct Work {
  int32_t product = 0;  ///< 0: gate/up, 1: down, −1: no more
  int32_t slot = 0;     ///< local expert
  int32_t row_block = 0;
  int32_t row_begin = 0, rows = 0;  ///< sorted rows
  int32_t tile = 0;                 ///< index in the plan
  int32_t sharers = 0;              ///< tiles of its group, which read the same weights
  bool same_weights = false;        ///< for both blocks of a cluster
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

/// The work of a ticket, of products with so many blocks of weight rows. The tiles of a group share a pass
/// over the weights: for each block of weight rows, all tiles of the group in turn.
///
/// A cluster of two blocks takes a ticket for both, of which this one is number `rank`. They get tiles side
/// by side with the same block of weight rows; the last tile of a group that is odd in number they get
/// together, with blocks of weight rows side by side. Where there is none left for one of them it gets no
/// rows, and a block of weights that exists.
template <int kClusterBlocks = 1>
__device__ Work work_of_ticket(const MoePlan& plan, int2 row_blocks_of, int32_t ticket, int32_t rank = 0) {
  static_assert(kClusterBlocks == 1 || kClusterBlocks == 2);
  const int32_t num_tiles = plan.counters->num_tiles;
  Work work{.product = 0};
  int32_t row_blocks = row_blocks_of.x, rounds = ceil_div(row_blocks, kClusterBlocks);
  if (ticket >= num_tiles * rounds) {
    ticket -= num_tiles * rounds;
    work.product = 1;
    row_blocks = row_blocks_of.y, rounds = ceil_div(row_blocks, kClusterBlocks);
    if (ticket >= num_tiles * rounds) return {.product = -1};
  }
  const int32_t group = plan.tiles[ticket / rounds].group;
  const int32_t first = group / 16;
  work.sharers = group % 16;
  const int32_t in_group = ticket - first * rounds;
  const int32_t round = in_group / work.sharers, i = in_group % work.sharers;
  if constexpr (kClusterBlocks == 1) {
    work.row_block = round;
    work.tile = first + i;
  } else {
    const int32_t pairs = work.sharers / 2;
    work.same_weights = i < 2 * pairs;
    work.row_block = 2 * round + (work.same_weights ? i / pairs : rank);
    work.tile = first + (work.same_weights ? i % pairs * 2 + rank : i);
  }
  const MoeTile tile = plan.tiles[work.tile];
  work.slot = tile.slot;
  work.row_begin = tile.row_begin;
  work.rows = tile.rows;
  if (kClusterBlocks > 1 && work.row_block >= row_blocks) work.row_block = row_blocks - 1, work.rows = 0;
  return work;
}
template <int kTileRows, int kClusterBlocks = 1>
__device__ Work work_of_ticket(const GroupedGemmArgs& args, int32_t ticket, int32_t rank = 0) {
  return work_of_ticket<kClusterBlocks>(
      args.plan, make_int2(sizes_of<kTileRows>(args, 0).row_blocks, sizes_of<kTileRows>(args, 1).row_blocks),
      ticket, rank);
}

/// Tickets on their way: a block is at most a ring of stages ahead of the other, and a tile takes at least
/// one.
constexpr int kTicketSlots = 8;

/// The cluster's next ticket, which its first block takes and sends to both by `tickets` and `ticket_full` of
/// Shared. Called by one thread of each.
template <int kClusterBlocks, class Shared>
__device__ int32_t next_ticket(const MoePlan& plan, Shared& shared, uint32_t turn, int32_t rank) {
  if constexpr (kClusterBlocks == 1) return atomicAdd(&plan.counters->next_ticket, 1);
  const uint32_t slot = turn % kTicketSlots;
  int32_t* const place = &shared.tickets[slot];
  uint64_t* const full = &shared.ticket_full[slot];
  mbarrier_arrive_expect(full, sizeof(int32_t));
  if (rank == 0) {
    const int32_t ticket = atomicAdd(&plan.counters->next_ticket, 1);
    for (uint32_t block = 0; block < kClusterBlocks; ++block) store_in_cluster(place, block, ticket, full);
  }
  mbarrier_wait(full, turn / kTicketSlots % 2);
  return *static_cast<volatile int32_t*>(place);
}

__device__ __forceinline__ float silu(float v) { return __fdividef(v, 1.0f + __expf(-v)); }

}  // namespace moerun::cuda

namespace moerun {

/// grouped_gemm_wide.cu's kernel, for tilings of kWideTileRows.
constexpr int32_t kWideTileRows = 160;
void launch_grouped_gemm_wide(const GroupedGemmArgs& args, cudaStream_t stream);

}  // namespace moerun
