#pragma once
// What prefill attention has in shared memory, and the warps that fill it.
#include "kernels/cuda/fp8_cache.cuh"
#include "kernels/cuda/prefill_tiles.cuh"
#include "kernels/cuda/tensor_copy.cuh"

namespace moerun::cuda {

constexpr int kGroupThreads = 128, kConsumers = 2, kThreads = (1 + kConsumers) * kGroupThreads;
constexpr int kConsumerWarps = kConsumers * kGroupThreads / kWarpSize;
constexpr int kRows = kConsumers * 64, kRowBytes = 128;
constexpr int kStages = 2;
/// Keys of a tile, and stages of queries: as many as shared memory has room for.
template <int kDim>
constexpr int kKeysOf = kDim > 128 ? 64 : 128;
template <int kDim>
constexpr int kQueryStages = kDim > 128 ? 1 : 2;
constexpr int kPair = 2;  // blocks that share keys and values
constexpr int kWidenThreads = kGroupThreads - kWarpSize, kWidenWarps = kWidenThreads / kWarpSize;

struct PrefillParams {
  CUtensorMap queries;
  CUtensorMap keys, values;  // of 16 bits
  AttentionArgs args;
  Chunks chunks;
  const int32_t* block_table;
  int32_t max_blocks;
  int32_t piece;  // keys that one copy brings: they lie in one block
};

/// Keys and values in e4m3 on their way, in turn.
template <class C, int kDim>
struct RawStages {
  static constexpr int kStages = 2;
  alignas(16) uint8_t rows[kStages][kKeysOf<kDim> * kDim];
  uint64_t full[kStages], empty[kStages];
};
template <int kDim>
struct RawStages<void, kDim> {};

/// Operands lie in column blocks of 64 elements, 128 bytes a row, with the 128-byte swizzle. C: what keys and
/// values are cached in.
template <class C, int kDim>
struct PrefillShared {
  static constexpr bool kWidens = std::is_same_v<C, E4m3>;
  static constexpr int kProducerRegisters = kWidens ? 56 : 40, kConsumerRegisters = kWidens ? 224 : 232;
  static constexpr int kKeys = kKeysOf<kDim>;
  alignas(1024) uint8_t queries[kQueryStages<kDim>][kRows * kDim * 2];
  alignas(1024) uint8_t keys[kStages][kKeys * kDim * 2];
  alignas(1024) uint8_t values[kStages][kKeys * kDim * 2];
  RawStages<std::conditional_t<kWidens, C, void>, kDim> raw;
  Tile tiles[kQueryStages<kDim>];  // whose the queries are
  uint64_t queries_full[kQueryStages<kDim>], queries_empty[kQueryStages<kDim>];
  uint64_t keys_full[kStages], keys_empty[kStages], values_full[kStages], values_empty[kStages];

  __device__ void init(int cluster_blocks) {
    for (int i = 0; i < kQueryStages<kDim>; ++i) {
      mbarrier_init(&queries_full[i], 1);
      mbarrier_init(&queries_empty[i], kConsumers * kGroupThreads + (kWidens ? kWidenThreads : 0));
    }
    for (int i = 0; i < kStages; ++i) {
      for (uint64_t* const full : {&keys_full[i], &values_full[i]})
        mbarrier_init(full, kWidens ? kWidenThreads : 1);
      // Who fills them in the other block waits for the warps of this one, too.
      for (uint64_t* const empty : {&keys_empty[i], &values_empty[i]})
        mbarrier_init(empty, kConsumerWarps * (kWidens ? 1 : cluster_blocks));
      if constexpr (kWidens) {
        mbarrier_init(&raw.full[i], 1);
        mbarrier_init(&raw.empty[i], cluster_blocks > 1 ? kWidenWarps * cluster_blocks : kWidenThreads);
      }
    }
    mbarrier_init_fence();
  }
};
static_assert(sizeof(PrefillShared<E4m3, 128>) <= 227 * 1024 &&
              sizeof(PrefillShared<E4m3, 256>) <= 227 * 1024);

/// The part of a cluster's tile that is block `rank`'s. It may have no tokens: the block takes its part in
/// the copies all the same.
__device__ __forceinline__ Tile part_of(Tile tile, int32_t rank, int32_t tokens) {
  tile.first_token += rank * tokens;
  tile.first_position += rank * tokens;
  tile.num_tokens = min(tokens, max(0, tile.num_tokens - rank * tokens));
  return tile;
}

/// By each warp that has read all of what `barrier` guards: to every block that writes there.
template <int kBlocks>
__device__ __forceinline__ void release(uint64_t* barrier) {
  const int lane = threadIdx.x % kWarpSize;
  if constexpr (kBlocks > 1) {
    if (lane < kBlocks) mbarrier_arrive_in_cluster(barrier, lane);
  } else {
    if (lane == 0) mbarrier_arrive(barrier);
  }
}

/// Pieces of a tile of keys or of values, or of this block's half of them.
struct Pieces {
  int32_t row = 0;    // of the cache, where the lane's one begins
  int32_t bytes = 0;  // of all
  bool mine = false;  // the lane has one
};

/// To a stage of T.
template <int kDim, int kBlocks>
__device__ __forceinline__ void bring(uint8_t* to, const CUtensorMap& map, const Pieces& pieces,
                                      int32_t piece, uint64_t* full) {
  const int lane = threadIdx.x % kWarpSize;
  if (lane == 0) mbarrier_arrive_expect(full, pieces.bytes * 2);
  if (!pieces.mine) return;
  for (int c = 0; c < kDim / 64; ++c) {
    const uint32_t there = smem_address(to) + (c * kKeysOf<kDim> + lane * piece) * kRowBytes;
    if constexpr (kBlocks > 1)
      tensor_copy_multicast(there, map, c * 64, pieces.row, full, (1 << kBlocks) - 1);
    else
      tensor_copy(there, map, c * 64, pieces.row, full);
  }
}

/// To a stage of e4m3.
template <int kDim, int kBlocks>
__device__ __forceinline__ void bring(uint8_t* to, const void* cache, const Pieces& pieces, int32_t piece,
                                      uint64_t* full, uint64_t policy) {
  const int lane = threadIdx.x % kWarpSize;
  if (lane == 0) mbarrier_arrive_expect(full, pieces.bytes);
  if (!pieces.mine) return;
  uint8_t* const there = to + lane * piece * kDim;
  const uint8_t* const from = static_cast<const uint8_t*>(cache) + static_cast<int64_t>(pieces.row) * kDim;
  if constexpr (kBlocks > 1)
    bulk_copy_multicast(there, from, static_cast<uint32_t>(piece * kDim), full, policy, (1 << kBlocks) - 1);
  else
    bulk_copy(there, from, static_cast<uint32_t>(piece * kDim), full, policy);
}

/// Brings queries, keys and values. By one warp.
template <class C, int kDim, int kBlocks>
__device__ void produce(const PrefillParams& params, PrefillShared<C, kDim>& shared) {
  constexpr int kColumnBlocks = kDim / 64;
  constexpr bool kWidens = PrefillShared<C, kDim>::kWidens;
  const KvLayer& kv = params.args.kv;
  const int lane = threadIdx.x % kWarpSize;
  const int32_t group = params.args.num_heads / kv.num_kv_heads;
  const int32_t piece = params.piece, pieces = kKeysOf<kDim> / piece;  // of a key tile
  const int32_t rank = kBlocks > 1 ? cluster_rank() : 0, own_pieces = pieces / kBlocks;
  const int32_t cluster = blockIdx.x / kBlocks, num_clusters = gridDim.x / kBlocks;
  const int32_t tokens = params.chunks.tokens_a_tile / kBlocks;
  Tiles tiles(params.chunks, lane);
  Ring<kStages> ring;
  Ring<kQueryStages<kDim>> query_ring;
  const uint64_t policy = policy_evict_normal();
  for (int32_t round = 0;; ++round) {
    // There and back, so that none has the longest tile of every round.
    const int32_t place = round % 2 == 1 ? num_clusters - 1 - cluster : cluster;
    const Tile tile = part_of(tiles.at(round * num_clusters + place), rank, tokens);
    mbarrier_wait(&shared.queries_empty[query_ring.stage], query_ring.parity ^ 1);
    uint64_t* const full = &shared.queries_full[query_ring.stage];
    if (lane == 0) {
      shared.tiles[query_ring.stage] = tile;
      if (tile.num_keys == 0) {
        mbarrier_arrive(full);
      } else {
        mbarrier_arrive_expect(full, kColumnBlocks * tokens * group * kRowBytes);
        for (int c = 0; c < kColumnBlocks; ++c)
          tensor_copy(smem_address(shared.queries[query_ring.stage]) + c * kRows * kRowBytes, params.queries,
                      c * 64, tile.kv_head * group, tile.first_token, full);
      }
    }
    query_ring.advance();
    if (tile.num_keys == 0) return;

    const int32_t num_pieces = ceil_div(tile.context, piece);
    const int32_t* const table = params.block_table + static_cast<int64_t>(tile.sequence) * params.max_blocks;
    int32_t row = 0;  // of the cache, where the lane's piece of the 32 at hand begins
    for (int32_t first = 0; first * piece < tile.num_keys; first += pieces) {
      if (first % kWarpSize == 0 && first + lane < num_pieces) {
        const int32_t key = (first + lane) * piece;
        row = static_cast<int32_t>(
            cache_row(kv, table[key / kv.block_size], key % kv.block_size, tile.kv_head));
      }
      const int32_t count = min(pieces, num_pieces - first);
      const int32_t from = __shfl_sync(kFullMask, row, (first + lane) % kWarpSize);
      const Pieces of_tile{
          .row = from, .bytes = count * piece * kDim, .mine = lane < count && lane / own_pieces == rank};
      if constexpr (kWidens) {
        for (const Tensor& cache : {kv.k, kv.v}) {
          mbarrier_wait(&shared.raw.empty[ring.stage], ring.parity ^ 1);
          bring<kDim, kBlocks>(shared.raw.rows[ring.stage], cache.data, of_tile, piece,
                               &shared.raw.full[ring.stage], policy);
          ring.advance();
        }
      } else {
        mbarrier_wait(&shared.keys_empty[ring.stage], ring.parity ^ 1);
        bring<kDim, kBlocks>(shared.keys[ring.stage], params.keys, of_tile, piece,
                             &shared.keys_full[ring.stage]);
        mbarrier_wait(&shared.values_empty[ring.stage], ring.parity ^ 1);
        bring<kDim, kBlocks>(shared.values[ring.stage], params.values, of_tile, piece,
                             &shared.values_full[ring.stage]);
        ring.advance();
      }
    }
  }
}

/// A raw stage to a stage of T, 16 elements at a time. Eight lanes side by side read and write different
/// banks: they have four pieces of one row, and of the next row the other four, or the only ones.
template <class T, int kDim>
__device__ __forceinline__ void widen_stage(const uint8_t* raw, uint8_t* to) {
  constexpr int kKeys = kKeysOf<kDim>, kColumnBlocks = kDim / 64;
  constexpr int kRowsATurn = kWidenThreads / (kDim / 16), kTurns = ceil_div(kKeys, kRowsATurn);
  constexpr int kAtOnce = 4;  // loads under way
  const int thread = threadIdx.x - kWarpSize, piece = thread % 4;
  const int column_block = thread / 4 % kColumnBlocks;
  const int row0 = kColumnBlocks == 1
                       ? thread / 4
                       : thread / (8 * kColumnBlocks) * 2 + (thread / 4 ^ thread / (4 * kColumnBlocks)) % 2;
  const uint8_t* const from = raw + row0 * kDim + column_block * 64 + piece * 16;
  uint8_t* const out = to + (column_block * kKeys + row0) * kRowBytes;
  const auto there = [&](int turn) {
    return (turn + 1) * kRowsATurn <= kKeys || turn * kRowsATurn + row0 < kKeys;
  };
#pragma unroll
  for (int first = 0; first < kTurns; first += kAtOnce) {
    uint4 bytes[kAtOnce];
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i)
      if (first + i < kTurns && there(first + i))
        bytes[i] = *reinterpret_cast<const uint4*>(from + (first + i) * kRowsATurn * kDim);
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) {
      const int turn = first + i;
      if (turn >= kTurns || !there(turn)) continue;
      uint4 wide[2];
      widen<T>(bytes[i], wide);
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int place = (2 * piece + half) ^ ((row0 + turn * kRowsATurn) & 7);
        *reinterpret_cast<uint4*>(out + turn * kRowsATurn * kRowBytes + place * 16) = wide[half];
      }
    }
  }
}

/// Keys and values in e4m3 to T, in the order in which they come. By kWidenThreads.
template <class T, int kDim, int kBlocks>
__device__ void widen_tiles(PrefillShared<E4m3, kDim>& shared) {
  constexpr int kKeys = kKeysOf<kDim>;
  Ring<kStages> raw, ring;
  Ring<kQueryStages<kDim>> query_ring;
  const auto widen_next = [&](uint8_t* to, uint64_t* full, uint64_t* empty) {
    mbarrier_wait(&shared.raw.full[raw.stage], raw.parity);
    mbarrier_wait(empty, ring.parity ^ 1);
    widen_stage<T, kDim>(shared.raw.rows[raw.stage], to);
    fence_async_proxy();
    mbarrier_arrive(full);
    if constexpr (kBlocks > 1) {
      __syncwarp();
      release<kBlocks>(&shared.raw.empty[raw.stage]);
    } else {
      mbarrier_arrive(&shared.raw.empty[raw.stage]);
    }
    raw.advance();
  };
  while (true) {
    mbarrier_wait(&shared.queries_full[query_ring.stage], query_ring.parity);
    const int32_t num_keys = shared.tiles[query_ring.stage].num_keys;
    mbarrier_arrive(&shared.queries_empty[query_ring.stage]);
    query_ring.advance();
    if (num_keys == 0) return;
    for (int32_t first = 0; first < num_keys; first += kKeys) {
      widen_next(shared.keys[ring.stage], &shared.keys_full[ring.stage], &shared.keys_empty[ring.stage]);
      widen_next(shared.values[ring.stage], &shared.values_full[ring.stage],
                 &shared.values_empty[ring.stage]);
      ring.advance();
    }
  }
}

}  // namespace moerun::cuda
