// A tile is 128 query rows of one key head: all its query heads for as many positions as fit, so that short
// chunks fill tiles too and a tile spans few positions. One producer warp has the tensor copy engine bring
// queries, keys and values; two consumer warpgroups hold 64 rows each. While the softmax of one key tile
// runs, the product of the weights before it with their values does too, and the warpgroups take turns to
// enqueue products, so that one's softmax lies beside the other's products. Where chunks are long two blocks
// of a cluster take adjacent tiles, and each brings half of the keys and values for both.
#include "kernels/cuda/attention_prefill.h"

#include <algorithm>
#include <numeric>

#include "kernels/cuda/attention_heads.cuh"
#include "kernels/cuda/limits.h"
#include "kernels/cuda/prefill_tiles.cuh"
#include "kernels/cuda/tensor_copy.cuh"
#include "kernels/cuda/wgmma.cuh"

namespace moerun {
namespace {

using namespace cuda;

constexpr int kGroupThreads = 128, kConsumers = 2, kThreads = (1 + kConsumers) * kGroupThreads;
constexpr int kConsumerWarps = kConsumers * kGroupThreads / kWarpSize;
constexpr int kRows = kConsumers * 64, kRowBytes = 128;
constexpr int kKeys = 128;  // a tile of keys
constexpr int kStages = 2;
constexpr int kProducerRegisters = 40, kConsumerRegisters = 232;
constexpr int kMinBlockSize = limits::kBlockTokens;
constexpr int kPair = 2;         // blocks that share keys and values
constexpr int kPairedTiles = 6;  // of a mean chunk from which on they do
constexpr int kTurnBarrier = 3;  // and the next: named barriers by which the consumers take turns

struct Params {
  CUtensorMap queries, keys, values;
  AttentionArgs args;
  Chunks chunks;
  const int32_t* block_table;
  int32_t max_blocks;
  int32_t piece;  // keys that one copy brings: they lie in one block
};

/// Operands lie in column blocks of 64 elements, 128 bytes a row, with the 128-byte swizzle.
template <int kDim>
struct Shared {
  alignas(1024) uint8_t queries[kStages][kRows * kDim * 2];
  alignas(1024) uint8_t keys[kStages][kKeys * kDim * 2];
  alignas(1024) uint8_t values[kStages][kKeys * kDim * 2];
  Tile tiles[kStages];  // whose the queries are
  uint64_t queries_full[kStages], queries_empty[kStages];
  uint64_t keys_full[kStages], keys_empty[kStages], values_full[kStages], values_empty[kStages];
};

// ---------------------------------------------------------------- kernels

/// The part of a cluster's tile that is block `rank`'s. It may have no tokens: the block takes its part in
/// the copies all the same.
__device__ __forceinline__ Tile part_of(Tile tile, int32_t rank, int32_t tokens) {
  tile.first_token += rank * tokens;
  tile.first_position += rank * tokens;
  tile.num_tokens = min(tokens, max(0, tile.num_tokens - rank * tokens));
  return tile;
}

template <int kDim, int kBlocks>
__device__ void produce(const Params& params, Shared<kDim>& shared) {
  constexpr int kColumnBlocks = kDim / 64;
  const KvLayer& kv = params.args.kv;
  const int lane = threadIdx.x % kWarpSize;
  const int32_t group = params.args.num_heads / kv.num_kv_heads;
  const int32_t piece = params.piece, pieces = kKeys / piece;  // of a key tile
  const int32_t rank = kBlocks > 1 ? cluster_rank() : 0, own_pieces = pieces / kBlocks;
  const int32_t cluster = blockIdx.x / kBlocks, num_clusters = gridDim.x / kBlocks;
  const int32_t tokens = params.chunks.tokens_a_tile / kBlocks;
  Tiles tiles(params.chunks, lane);
  Ring<kStages> ring, query_ring;
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
      const auto copy = [&](uint8_t* to, const CUtensorMap& map, uint64_t* barrier) {
        if (lane == 0) mbarrier_arrive_expect(barrier, count * piece * kDim * 2);
        if (lane < count && lane / own_pieces == rank)
          for (int c = 0; c < kColumnBlocks; ++c) {
            const uint32_t there = smem_address(to) + (c * kKeys + lane * piece) * kRowBytes;
            if constexpr (kBlocks > 1)
              tensor_copy_multicast(there, map, c * 64, from, barrier, (1 << kBlocks) - 1);
            else
              tensor_copy(there, map, c * 64, from, barrier);
          }
      };
      mbarrier_wait(&shared.keys_empty[ring.stage], ring.parity ^ 1);
      copy(shared.keys[ring.stage], params.keys, &shared.keys_full[ring.stage]);
      mbarrier_wait(&shared.values_empty[ring.stage], ring.parity ^ 1);
      copy(shared.values[ring.stage], params.values, &shared.values_full[ring.stage]);
      ring.advance();
    }
  }
}

/// s [64, kKeys] = queries · keysᵀ: enqueued, not waited for.
template <class T, int kDim>
__device__ __forceinline__ void score(float (&s)[kKeys / 2], uint64_t queries, uint64_t keys) {
  wgmma_fence();
  wgmma_64xNx16<T, kKeys, false>(s, queries, keys);
#pragma unroll
  for (int step = 1; step < kDim / 16; ++step)
    wgmma_64xNx16<T, kKeys>(s, queries + step / 4 * (kRows * kRowBytes >> 4) + step % 4 * 2,
                            keys + step / 4 * (kKeys * kRowBytes >> 4) + step % 4 * 2);
  wgmma_commit();
}

/// o [64, kDim] += weights · values: enqueued, not waited for.
template <class T, int kDim>
__device__ __forceinline__ void add_values(float (&o)[kDim / 2], const uint32_t (&weights)[kKeys / 16][4],
                                           uint64_t values) {
  wgmma_fence();
#pragma unroll
  for (int step = 0; step < kKeys / 16; ++step)
    wgmma_64xNx16<T, kDim>(o, weights[step], values + step * (16 * kRowBytes >> 4));
  wgmma_commit();
}

/// The running softmax of a lane's two rows: 16w + l/4 and 8 more.
struct Softmax {
  float highest[2] = {-INFINITY, -INFINITY}, total[2] = {};  // the lane's own keys' share of the total

  /// s becomes the weights; what was summed before is to be multiplied by `shrink`.
  __device__ __forceinline__ void take(float (&s)[kKeys / 2], float scale, float (&shrink)[2]) {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      float now = highest[h], other = s[2 * h + 1];
#pragma unroll
      for (int j = 0; j < kKeys / 8; ++j)
        now = fmaxf(now, s[4 * j + 2 * h]), other = fmaxf(other, s[4 * j + 2 * h + 1]);
      now = fmaxf(now, other);
      now = fmaxf(now, __shfl_xor_sync(kFullMask, now, 1));
      now = fmaxf(now, __shfl_xor_sync(kFullMask, now, 2));
      shrink[h] = exp2_approx((highest[h] - now) * scale);
      highest[h] = now;
      const float offset = -now * scale;
      float sum[2] = {};
#pragma unroll
      for (int j = 0; j < kKeys / 8; ++j)
#pragma unroll
        for (int c = 0; c < 2; ++c) {
          float& v = s[4 * j + 2 * h + c];
          v = exp2_approx(fmaf(v, scale, offset));
          sum[c] += v;
        }
      total[h] = fmaf(total[h], shrink[h], sum[0] + sum[1]);
    }
  }
};

/// Keys past a row's own position weigh nothing.
__device__ __forceinline__ void mask(float (&s)[kKeys / 2], int32_t first_key,
                                     const int32_t (&positions)[2]) {
  const int t = threadIdx.x % 4;
#pragma unroll
  for (int i = 0; i < kKeys / 2; ++i) {
    const int32_t key = first_key + i / 4 * 8 + 2 * t + i % 2;
    if (key > positions[i / 2 % 2]) s[i] = -INFINITY;
  }
}

template <class T>
__device__ __forceinline__ void pack_weights(const float (&s)[kKeys / 2],
                                             uint32_t (&weights)[kKeys / 16][4]) {
#pragma unroll
  for (int step = 0; step < kKeys / 16; ++step)
#pragma unroll
    for (int i = 0; i < 4; ++i)
      weights[step][i] = pack_floats<T>(s[8 * step + 2 * i], s[8 * step + 2 * i + 1]);
}

/// Zeros in the place of values past the context: pages come whole, and a weight of 0 times a NaN that
/// happens to lie there would be one. Both consumers do it, each for itself.
template <int kDim>
__device__ __forceinline__ void clear_values(uint8_t* values, int32_t first_row, int consumer) {
  const int thread = threadIdx.x % kGroupThreads;
  for (int32_t row = first_row + thread / 8; row < kKeys; row += kGroupThreads / 8)
#pragma unroll
    for (int c = 0; c < kDim / 64; ++c)
      *reinterpret_cast<uint4*>(values + (c * kKeys + row) * kRowBytes + thread % 8 * 16) = uint4{};
  fence_async_proxy();
  named_barrier_sync(1 + consumer, kGroupThreads);
}

/// Word u of lane t of a quad becomes word t of lane u.
__device__ __forceinline__ void transpose_quad(uint32_t (&w)[4]) {
  const int t = threadIdx.x % 4;
#pragma unroll
  for (int d = 1; d <= 2; d *= 2)
#pragma unroll
    for (int low = 0; low < 4; ++low) {
      if (low & d) continue;
      const bool upper = t & d;
      const uint32_t got = __shfl_xor_sync(kFullMask, upper ? w[low] : w[low + d], d);
      if (upper)
        w[low] = got;
      else
        w[low + d] = got;
    }
}

template <class T, int kDim, int kBlocks>
__device__ void consume(const Params& params, Shared<kDim>& shared, int consumer) {
  const AttentionArgs& args = params.args;
  const int32_t group = args.num_heads / args.kv.num_kv_heads;
  const int thread = threadIdx.x % kGroupThreads, warp = thread / kWarpSize, lane = thread % kWarpSize;
  const float scale = args.scale * kLog2E;
  const int32_t row = consumer * 64 + warp * 16 + lane / 4;
  const int32_t tokens[2] = {row / group, (row + 8) / group};  // within the tile
  const uint64_t queries0 = wgmma_descriptor(smem_address(shared.queries) + consumer * 64 * kRowBytes);
  const uint64_t keys0 = wgmma_descriptor(smem_address(shared.keys));
  const uint64_t values0 = wgmma_descriptor_transposed(smem_address(shared.values), kKeys * kRowBytes);
  constexpr uint64_t kStageStep = kKeys * kDim * 2 >> 4, kQueryStep = kRows * kDim * 2 >> 4;
  Ring<kStages> key_ring, value_ring, query_ring;
  const auto release = [&](uint64_t* barrier) {
    if constexpr (kBlocks > 1) {
      if (lane < kBlocks) mbarrier_arrive_in_cluster(barrier, lane);
    } else {
      if (lane == 0) mbarrier_arrive(barrier);
    }
  };
  if (consumer == 1) named_barrier_arrive(kTurnBarrier, kConsumers * kGroupThreads);  // the other begins
  while (true) {
    mbarrier_wait(&shared.queries_full[query_ring.stage], query_ring.parity);
    const Tile tile = shared.tiles[query_ring.stage];
    if (tile.num_keys == 0) return;
    const uint64_t queries = queries0 + query_ring.stage * kQueryStep;
    const int32_t positions[2] = {tile.first_position + tokens[0], tile.first_position + tokens[1]};
    const int32_t lowest = tile.first_position + consumer * 64 / group;
    const int32_t last = (tile.num_keys - 1) / kKeys;  // key tile
    float s[kKeys / 2], o[kDim / 2] = {}, shrink[2];
    uint32_t weights[kKeys / 16][4];
    Softmax softmax;
    const auto soften = [&](int32_t j) {
      if ((j + 1) * kKeys - 1 > lowest) mask(s, j * kKeys, positions);
      softmax.take(s, scale, shrink);
    };

    mbarrier_wait(&shared.keys_full[key_ring.stage], key_ring.parity);
    score<T, kDim>(s, queries, keys0 + key_ring.stage * kStageStep);
    wgmma_wait<0>();
    wgmma_settled(s);
    release(&shared.keys_empty[key_ring.stage]);
    key_ring.advance();
    soften(0);
    pack_weights<T>(s, weights);
    for (int32_t j = 1; j <= last; ++j) {
      mbarrier_wait(&shared.keys_full[key_ring.stage], key_ring.parity);
      mbarrier_wait(&shared.values_full[value_ring.stage], value_ring.parity);
      named_barrier_sync(kTurnBarrier + consumer, kConsumers * kGroupThreads);
      score<T, kDim>(s, queries, keys0 + key_ring.stage * kStageStep);
      add_values<T, kDim>(o, weights, values0 + value_ring.stage * kStageStep);
      named_barrier_arrive(kTurnBarrier + 1 - consumer, kConsumers * kGroupThreads);
      wgmma_wait<1>();
      wgmma_settled(s);
      release(&shared.keys_empty[key_ring.stage]);
      key_ring.advance();
      soften(j);
      wgmma_wait<0>();
      wgmma_settled(o);
      release(&shared.values_empty[value_ring.stage]);
      value_ring.advance();
#pragma unroll
      for (int i = 0; i < kDim / 2; ++i) o[i] *= shrink[i / 2 % 2];
      pack_weights<T>(s, weights);
    }
    mbarrier_arrive(&shared.queries_empty[query_ring.stage]);  // each thread has read the tile
    query_ring.advance();
    mbarrier_wait(&shared.values_full[value_ring.stage], value_ring.parity);
    if (tile.context < (last + 1) * kKeys)
      clear_values<kDim>(shared.values[value_ring.stage], tile.context - last * kKeys, consumer);
    add_values<T, kDim>(o, weights, values0 + value_ring.stage * kStageStep);
    wgmma_wait<0>();
    wgmma_settled(o);
    release(&shared.values_empty[value_ring.stage]);
    value_ring.advance();

#pragma unroll
    for (int h = 0; h < 2; ++h) {
      float total = softmax.total[h];
      total += __shfl_xor_sync(kFullMask, total, 1);
      total += __shfl_xor_sync(kFullMask, total, 2);
      const float inverse = 1 / total;
      T* const out = static_cast<T*>(args.out.data) +
                     (static_cast<int64_t>(tile.first_token + tokens[h]) * args.num_heads +
                      tile.kv_head * group + (row + 8 * h - tokens[h] * group)) *
                         kDim;
#pragma unroll
      for (int j = 0; j < kDim / 8; j += 4) {
        uint32_t w[4];
#pragma unroll
        for (int u = 0; u < 4; ++u)
          w[u] = pack_floats<T>(o[4 * (j + u) + 2 * h] * inverse, o[4 * (j + u) + 2 * h + 1] * inverse);
        transpose_quad(w);
        if (tokens[h] < tile.num_tokens)
          *reinterpret_cast<uint4*>(out + 8 * (j + lane % 4)) = make_uint4(w[0], w[1], w[2], w[3]);
      }
    }
  }
}

template <class T, int kDim, int kBlocks>
__global__ void __launch_bounds__(kThreads, 1) __cluster_dims__(kBlocks)
    attention_prefill_kernel(const __grid_constant__ Params params) {
  extern __shared__ __align__(1024) uint8_t shared_bytes[];
  Shared<kDim>& shared = *reinterpret_cast<Shared<kDim>*>(shared_bytes);
  if (threadIdx.x == 0) {
    tensor_map_prefetch(params.queries);
    tensor_map_prefetch(params.keys);
    tensor_map_prefetch(params.values);
    for (int i = 0; i < kStages; ++i) {
      for (uint64_t* const full : {&shared.queries_full[i], &shared.keys_full[i], &shared.values_full[i]})
        mbarrier_init(full, 1);
      mbarrier_init(&shared.queries_empty[i], kConsumers * kGroupThreads);
      for (uint64_t* const empty : {&shared.keys_empty[i], &shared.values_empty[i]})
        mbarrier_init(empty, kConsumerWarps * kBlocks);
    }
    mbarrier_init_fence();
  }
  const auto meet = [] {
    if constexpr (kBlocks > 1) {
      cluster_arrive();
      cluster_wait();
    } else {
      __syncthreads();
    }
  };
  meet();
  dependency_wait();
  dependents_launch();
  const int group = threadIdx.x / kGroupThreads;
  if (group == 0) {
    registers_release<kProducerRegisters>();
    if (threadIdx.x < kWarpSize) produce<kDim, kBlocks>(params, shared);
  } else {
    registers_acquire<kConsumerRegisters>();
    consume<T, kDim, kBlocks>(params, shared, group - 1);
  }
  if constexpr (kBlocks > 1) meet();  // the other block sends and arrives here until it ends
}

}  // namespace

// ---------------------------------------------------------------- launchers

namespace {

template <class T, int kDim, int kBlocks>
void launch_tiles(const DevicePlan& plan, const AttentionArgs& args, int32_t num_sms, cudaStream_t stream) {
  const KvLayer& kv = args.kv;
  const int32_t group = args.num_heads / kv.num_kv_heads;
  const int32_t tokens = kRows / group, tokens_a_tile = tokens * kBlocks;
  const int32_t piece = std::gcd(kKeys / kBlocks, kv.block_size);
  const Params params{
      .queries = tensor_map<3>(args.q.data, {kDim, args.num_heads, args.q.rows}, {64, group, tokens}),
      .keys = tensor_map<2>(kv.k.data, {kDim, kv.k.rows}, {64, piece}),
      .values = tensor_map<2>(kv.v.data, {kDim, kv.v.rows}, {64, piece}),
      .args = args,
      .chunks = {.cu_seqlens_q = plan.cu_seqlens_q.data,
                 .context_lens = plan.context_lens.data,
                 .num_seqs = plan.num_prefill_seqs,
                 .num_kv_heads = kv.num_kv_heads,
                 .tokens_a_tile = tokens_a_tile,
                 .max_levels = ceil_div(plan.max_query_len, tokens_a_tile)},
      .block_table = plan.block_table.data,
      .max_blocks = plan.max_blocks,
      .piece = piece};
  const int32_t num_tiles = params.chunks.max_levels * plan.num_prefill_seqs * kv.num_kv_heads;
  constexpr auto* kernel = attention_prefill_kernel<T, kDim, kBlocks>;
  CUDA_CHECK(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, sizeof(Shared<kDim>)));
  launch_dependent(kernel, static_cast<unsigned>(kBlocks * std::min(num_tiles, num_sms / kBlocks)), kThreads,
                   sizeof(Shared<kDim>), stream, params);
}

}  // namespace

void launch_attention_prefill(DType dtype, const DevicePlan& plan, const AttentionArgs& args, int32_t num_sms,
                              cudaStream_t stream) {
  if (plan.num_prefill_seqs == 0) return;
  const KvLayer& kv = args.kv;
  const int32_t group = args.num_heads / kv.num_kv_heads;
  if (kv.block_size % kMinBlockSize != 0)
    throw Error("attention on the GPU takes blocks of a multiple of 32 tokens, not " +
                std::to_string(kv.block_size));
  if (group < 1 || group > kRows || args.num_heads % kv.num_kv_heads != 0)
    throw Error("prefill attention on the GPU takes 1 to 128 query heads for each key head, not " +
                std::to_string(args.num_heads) + " for " + std::to_string(kv.num_kv_heads));
  const int32_t prefill_tokens = plan.num_tokens - (plan.num_seqs - plan.num_prefill_seqs);
  const bool paired =
      num_sms >= kPair && prefill_tokens / plan.num_prefill_seqs >= kPairedTiles * (kRows / group);
  with_head(dtype, kv.head_dim, [&]<class T, int kDim>() {
    if (paired)
      launch_tiles<T, kDim, kPair>(plan, args, num_sms, stream);
    else
      launch_tiles<T, kDim, 1>(plan, args, num_sms, stream);
  });
}

}  // namespace moerun
