// A tile is 128 query rows of one key head: all its query heads for as many positions as fit, so that short
// chunks fill tiles too and a tile spans few positions. One producer warp has the tensor copy engine bring
// queries, keys and values; two consumer warpgroups hold 64 rows each. While the softmax of one key tile
// runs, the product of the weights before it with their values does too, and the consumers take turns at
// enqueueing products, so that one's softmax runs during the other's products.
#include "kernels/cuda/attention_prefill.h"

#include <algorithm>
#include <numeric>

#include "kernels/cuda/attention_heads.cuh"
#include "kernels/cuda/tensor_copy.cuh"

namespace moerun::variants {
namespace {

using namespace cuda;

constexpr int kGroupThreads = 128, kConsumers = 2, kThreads = (1 + kConsumers) * kGroupThreads;
constexpr int kConsumerWarps = kConsumers * kGroupThreads / kWarpSize;
constexpr int kRows = kConsumers * 64, kRowBytes = 128;
constexpr int kKeys = 128;  // a tile of keys
constexpr int kStages = 2, kQueryStages = 2;
constexpr int kProducerRegisters = 40, kConsumerRegisters = 232;
constexpr int kMinBlockSize = 32;

#ifndef ATTN_OPTIONS
#define ATTN_OPTIONS
/// Scratch: what the variants differ in.
constexpr int kTurns = 1, kHalf = 2, kSkip = 4, kSnake = 8;
#endif

struct Params {
  CUtensorMap queries, keys, values;
  AttentionArgs args;
  const int32_t *cu_seqlens_q, *context_lens, *block_table;
  int32_t max_blocks, num_seqs;
  int32_t max_levels;       // tiles of the longest chunk
  int32_t piece;            // keys that one copy brings: they lie in one block
};

/// What a thread block is at: up to tokens_a_tile positions of a sequence and one key head.
struct Tile {
  int32_t kv_head, sequence;
  int32_t first_token, num_tokens, first_position, context;
  int32_t num_keys;  // that the last position sees; 0: there are no more tiles
};

/// Operands lie in column blocks of 64 elements, 128 bytes a row, with the 128-byte swizzle.
template <int kDim>
struct Shared {
  alignas(1024) uint8_t queries[kQueryStages][kRows * kDim * 2];
  alignas(1024) uint8_t keys[kStages][kKeys * kDim * 2];
  alignas(1024) uint8_t values[kStages][kKeys * kDim * 2];
  Tile tiles[kQueryStages];
  uint64_t queries_full[kQueryStages], queries_empty[kQueryStages];
  uint64_t keys_full[kStages], keys_empty[kStages], values_full[kStages], values_empty[kStages];
#ifdef MOERUN_WAIT_DEADLINE
  unsigned int marks[12], finished;
#endif
};
#ifdef MOERUN_WAIT_DEADLINE
#define ATTN_MARK(code) \
  do { if (threadIdx.x % 32 == 0) *(volatile unsigned int*)&shared.marks[threadIdx.x / 32] = (code); } while (0)
#else
#define ATTN_MARK(code)
#endif

template <int kSize>
struct Ring {
  uint32_t stage = 0, parity = 0;
  __device__ void advance() {
    if (++stage == kSize) stage = 0, parity ^= 1;
  }
};

// ---------------------------------------------------------------- kernels

/// The tiles in falling order of their number within their chunk, so of their length where chunks begin
/// alike; a warp walks through them together.
class Tiles {
 public:
  __device__ Tiles(const Params& params, int lane)
      : params_(params),
        lane_(lane),
        group_(params.args.num_heads / params.args.kv.num_kv_heads),
        level_(params.max_levels) {}

  /// Tile number `index`, not below those asked for before. num_keys == 0: there is none.
  __device__ Tile at(int32_t index) {
    const int32_t kv_heads = params_.args.kv.num_kv_heads, tokens_a_tile = kRows / group_;
    while (index >= end_) {
      if (level_ == 0) return {};
      --level_;
      begin_ = end_;
      for (int32_t first = 0; first < params_.num_seqs; first += kWarpSize)
        end_ += kv_heads * __popc(reaching(first));
    }
    Tile tile;
    tile.kv_head = (index - begin_) % kv_heads;
    int32_t rank = (index - begin_) / kv_heads, first = 0;
    uint32_t lanes = reaching(first);
    while (rank >= __popc(lanes)) {
      rank -= __popc(lanes);
      first += kWarpSize;
      lanes = reaching(first);
    }
    const bool chosen = (lanes >> lane_ & 1) && __popc(lanes & ((1u << lane_) - 1)) == rank;
    tile.sequence = first + __ffs(__ballot_sync(kFullMask, chosen)) - 1;
    const int32_t begin = params_.cu_seqlens_q[tile.sequence], end = params_.cu_seqlens_q[tile.sequence + 1];
    tile.context = params_.context_lens[tile.sequence];
    tile.first_token = begin + level_ * tokens_a_tile;
    tile.num_tokens = min(tokens_a_tile, end - tile.first_token);
    tile.first_position = tile.context - (end - tile.first_token);
    tile.num_keys = tile.first_position + tile.num_tokens;
    return tile;
  }

 private:
  /// Which of the sequences [first, first + 32) have a tile at this level.
  __device__ uint32_t reaching(int32_t first) const {
    const int32_t sequence = first + lane_;
    const bool reaches =
        sequence < params_.num_seqs && params_.cu_seqlens_q[sequence + 1] - params_.cu_seqlens_q[sequence] >
                                           level_ * (kRows / group_);
    return __ballot_sync(kFullMask, reaches);
  }

  const Params& params_;
  int lane_;
  int32_t group_, level_, begin_ = 0, end_ = 0;  // the level's tiles are [begin_, end_)
};

template <class T, int kDim, int kOptions>
__device__ void produce(const Params& params, Shared<kDim>& shared) {
  constexpr int kColumnBlocks = kDim / 64;
  const KvLayer& kv = params.args.kv;
  const int lane = threadIdx.x % kWarpSize;
  const int32_t group = params.args.num_heads / kv.num_kv_heads, tokens_a_tile = kRows / group;
  const int32_t piece = params.piece, pieces = kKeys / piece;  // of a key tile
  Tiles tiles(params, lane);
  Ring<kStages> ring;
  Ring<kQueryStages> query_ring;
  for (int32_t round = 0;; ++round) {
    // There and back, so that no thread block has the longest tile of every round.
    const bool back = (kOptions & kSnake) != 0 && round % 2 == 1;
    const Tile tile = tiles.at(round * gridDim.x + (back ? gridDim.x - 1 - blockIdx.x : blockIdx.x));
    ATTN_MARK(10);
    mbarrier_wait(&shared.queries_empty[query_ring.stage], query_ring.parity ^ 1);
    uint64_t* const full = &shared.queries_full[query_ring.stage];
    if (lane == 0) {
      shared.tiles[query_ring.stage] = tile;
      if (tile.num_keys == 0) {
        mbarrier_arrive(full);
      } else {
        mbarrier_arrive_expect(full, kColumnBlocks * tokens_a_tile * group * kRowBytes);
        for (int c = 0; c < kColumnBlocks; ++c)
          tensor_copy(smem_address(shared.queries[query_ring.stage]) + c * kRows * kRowBytes, params.queries,
                      c * 64, tile.kv_head * group, tile.first_token, full);
      }
    }
    query_ring.advance();
    if (tile.num_keys == 0) return;

    const int32_t num_pieces = ceil_div(tile.context, piece);
    const int32_t* const table = params.block_table + static_cast<int64_t>(tile.sequence) * params.max_blocks;
    int32_t row = 0;  // of the cache: piece number first + lane of the sequence
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
        if (lane < count)
          for (int c = 0; c < kColumnBlocks; ++c)
            tensor_copy(smem_address(to) + (c * kKeys + lane * piece) * kRowBytes, map, c * 64, from, barrier);
      };
      ATTN_MARK(11);
      mbarrier_wait(&shared.keys_empty[ring.stage], ring.parity ^ 1);
      copy(shared.keys[ring.stage], params.keys, &shared.keys_full[ring.stage]);
      ATTN_MARK(12);
      mbarrier_wait(&shared.values_empty[ring.stage], ring.parity ^ 1);
      copy(shared.values[ring.stage], params.values, &shared.values_full[ring.stage]);
      ring.advance();
    }
  }
}

/// s [64, kCount] = queries · keysᵀ: enqueued, not waited for.
template <class T, int kDim, int kCount>
__device__ __forceinline__ void score(float (&s)[kCount / 2], uint64_t queries, uint64_t keys) {
  wgmma_fence();
  wgmma_64xNx16<T, kCount, false>(s, queries, keys);
#pragma unroll
  for (int step = 1; step < kDim / 16; ++step)
    wgmma_64xNx16<T, kCount>(s, queries + step / 4 * (kRows * kRowBytes >> 4) + step % 4 * 2,
                             keys + step / 4 * (kKeys * kRowBytes >> 4) + step % 4 * 2);
  wgmma_commit();
}

/// o [64, kDim] += weights · values of kCount keys: enqueued, not waited for.
template <class T, int kDim, int kCount>
__device__ __forceinline__ void add_values(float (&o)[kDim / 2], const uint32_t (&weights)[kKeys / 16][4],
                                           uint64_t values) {
  wgmma_fence();
#pragma unroll
  for (int step = 0; step < kCount / 16; ++step)
    wgmma_64xNx16<T, kDim>(o, weights[step], values + step * (16 * kRowBytes >> 4));
  wgmma_commit();
}

/// The running softmax of a lane's two rows: 16w + l/4 and 8 more.
struct Softmax {
  float highest[2] = {-INFINITY, -INFINITY}, total[2] = {};  // the lane's own keys' share of the total

  /// s becomes the weights; what was summed before is to be multiplied by `shrink`.
  template <int kCount>
  __device__ __forceinline__ void take(float (&s)[kCount], float scale, float (&shrink)[2]) {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      float now = highest[h], other = s[2 * h + 1];
#pragma unroll
      for (int j = 0; j < kCount / 4; ++j)
        now = fmaxf(now, s[4 * j + 2 * h]), other = fmaxf(other, s[4 * j + 2 * h + 1]);
      now = fmaxf(now, other);
      now = fmaxf(now, __shfl_xor_sync(kFullMask, now, 1));
      now = fmaxf(now, __shfl_xor_sync(kFullMask, now, 2));
      shrink[h] = exp2_approx((highest[h] - now) * scale);
      highest[h] = now;
      const float offset = -now * scale;
      float sum[2] = {};
#pragma unroll
      for (int j = 0; j < kCount / 4; ++j)
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
template <int kCount>
__device__ __forceinline__ void mask(float (&s)[kCount], int32_t first_key, const int32_t (&positions)[2]) {
  const int t = threadIdx.x % 4;
#pragma unroll
  for (int i = 0; i < kCount; ++i) {
    const int32_t key = first_key + i / 4 * 8 + 2 * t + i % 2;
    if (key > positions[i / 2 % 2]) s[i] = -INFINITY;
  }
}

template <class T, int kCount>
__device__ __forceinline__ void pack_weights(const float (&s)[kCount], uint32_t (&weights)[kKeys / 16][4]) {
#pragma unroll
  for (int step = 0; step < kCount / 8; ++step)
#pragma unroll
    for (int i = 0; i < 4; ++i)
      weights[step][i] = pack_floats<T>(s[8 * step + 2 * i], s[8 * step + 2 * i + 1]);
}

/// Zeros in the place of values past the context: a weight of 0 times whatever lies there must be 0. Both
/// consumers do it, each for itself.
template <int kDim>
__device__ __forceinline__ void clear_values(uint8_t* values, int32_t first_row, int consumer) {
  const int thread = threadIdx.x % kGroupThreads;
  for (int32_t row = first_row + thread / 8; row < kKeys; row += kGroupThreads / 8)
#pragma unroll
    for (int c = 0; c < kDim / 64; ++c)
      *reinterpret_cast<uint4*>(values + (c * kKeys + row) * kRowBytes + thread % 8 * 16) = uint4{};
  fence_async_proxy();
  named_barrier_sync(1 + kConsumers + consumer, kGroupThreads);
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

template <class T, int kDim, int kOptions>
__device__ void consume(const Params& params, Shared<kDim>& shared, int consumer) {
  const AttentionArgs& args = params.args;
  const int32_t group = args.num_heads / args.kv.num_kv_heads;
  const int thread = threadIdx.x % kGroupThreads, warp = thread / kWarpSize, lane = thread % kWarpSize;
  const bool elected = lane == 0;
  const float scale = args.scale * kLog2E;
  const int32_t row = consumer * 64 + warp * 16 + lane / 4;
  const int32_t tokens[2] = {row / group, (row + 8) / group};  // within the tile
  const uint64_t queries0 = wgmma_descriptor(smem_address(shared.queries) + consumer * 64 * kRowBytes);
  const uint64_t keys0 = wgmma_descriptor(smem_address(shared.keys));
  const uint64_t values0 = wgmma_descriptor_transposed(smem_address(shared.values), kKeys * kRowBytes);
  constexpr uint64_t kStageStep = kKeys * kDim * 2 >> 4, kQueryStep = kRows * kDim * 2 >> 4;
  Ring<kStages> key_ring, value_ring;
  Ring<kQueryStages> query_ring;
  const auto release = [&](uint64_t* barrier) {
    if (elected) mbarrier_arrive(barrier);
  };
  const auto turn_wait = [&] {
    if constexpr ((kOptions & kTurns) != 0) named_barrier_sync(1 + consumer, kConsumers * kGroupThreads);
  };
  const auto turn_pass = [&] {
    if constexpr ((kOptions & kTurns) != 0) named_barrier_arrive(1 + (consumer ^ 1), kConsumers * kGroupThreads);
  };
  if (consumer == 1) turn_pass();
  while (true) {
    ATTN_MARK(1);
    mbarrier_wait(&shared.queries_full[query_ring.stage], query_ring.parity);
    const Tile tile = shared.tiles[query_ring.stage];
    if (tile.num_keys == 0) break;
    const uint64_t queries = queries0 + query_ring.stage * kQueryStep;
    const int32_t positions[2] = {tile.first_position + tokens[0], tile.first_position + tokens[1]};
    const int32_t lowest = tile.first_position + consumer * 64 / group;
    const int32_t last = (tile.num_keys - 1) / kKeys;  // key tile
    const bool half = (kOptions & kHalf) != 0 && tile.num_keys - last * kKeys <= kKeys / 2;
    float o[kDim / 2] = {}, shrink[2];
    uint32_t weights[kKeys / 16][4];
    Softmax softmax;
    // Scores of key tile j's first kCount keys, while the weights before go to their values.
    const auto soften = [&](auto& s, int32_t j) {
      if ((j + 1) * kKeys - 1 > lowest) mask(s, j * kKeys, positions);
      softmax.take(s, scale, shrink);
    };
    const auto first_step = [&]<int kCount>() {
      float s[kCount / 2];
      ATTN_MARK(2);
      mbarrier_wait(&shared.keys_full[key_ring.stage], key_ring.parity);
      score<T, kDim, kCount>(s, queries, keys0 + key_ring.stage * kStageStep);
      wgmma_wait<0>();
      wgmma_settled(s);
      release(&shared.keys_empty[key_ring.stage]);
      key_ring.advance();
      soften(s, 0);
      pack_weights<T>(s, weights);
    };
    const auto step = [&]<int kCount>(int32_t j) {
      float s[kCount / 2];
      ATTN_MARK(3);
      mbarrier_wait(&shared.keys_full[key_ring.stage], key_ring.parity);
      mbarrier_wait(&shared.values_full[value_ring.stage], value_ring.parity);
      ATTN_MARK(4);
      turn_wait();
      ATTN_MARK(5);
      score<T, kDim, kCount>(s, queries, keys0 + key_ring.stage * kStageStep);
      add_values<T, kDim, kKeys>(o, weights, values0 + value_ring.stage * kStageStep);
      turn_pass();
      wgmma_wait<1>();
      wgmma_settled(s);
      release(&shared.keys_empty[key_ring.stage]);
      key_ring.advance();
      soften(s, j);
      wgmma_wait<0>();
      wgmma_settled(o);
      release(&shared.values_empty[value_ring.stage]);
      value_ring.advance();
      if ((kOptions & kSkip) == 0 || __any_sync(kFullMask, shrink[0] != 1 || shrink[1] != 1)) {
#pragma unroll
        for (int i = 0; i < kDim / 2; ++i) o[i] *= shrink[i / 2 % 2];
      }
      pack_weights<T>(s, weights);
    };
    const auto last_values = [&]<int kCount>() {
      ATTN_MARK(6);
      mbarrier_wait(&shared.values_full[value_ring.stage], value_ring.parity);
      if (tile.context < (last + 1) * kKeys)
        clear_values<kDim>(shared.values[value_ring.stage], tile.context - last * kKeys, consumer);
      add_values<T, kDim, kCount>(o, weights, values0 + value_ring.stage * kStageStep);
      wgmma_wait<0>();
      wgmma_settled(o);
      release(&shared.values_empty[value_ring.stage]);
      value_ring.advance();
    };

    if (last == 0 && half)
      first_step.template operator()<kKeys / 2>();
    else
      first_step.template operator()<kKeys>();
    for (int32_t j = 1; j < last + (half ? 0 : 1); ++j) step.template operator()<kKeys>(j);
    if (last > 0 && half) step.template operator()<kKeys / 2>(last);
    release(&shared.queries_empty[query_ring.stage]);
    query_ring.advance();
    if (half)
      last_values.template operator()<kKeys / 2>();
    else
      last_values.template operator()<kKeys>();

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
  if (consumer == 0) turn_wait();  // for the other's last turn: no barrier is left half arrived at
#ifdef MOERUN_WAIT_DEADLINE
  if (elected) atomicAdd(&shared.finished, 1u);
#endif
}

template <class T, int kDim, int kOptions>
__global__ void __launch_bounds__(kThreads, 1)
    attention_prefill_kernel(const __grid_constant__ Params params) {
  extern __shared__ __align__(1024) uint8_t shared_bytes[];
  Shared<kDim>& shared = *reinterpret_cast<Shared<kDim>*>(shared_bytes);
  if (threadIdx.x == 0) {
    tensor_map_prefetch(params.queries);
    tensor_map_prefetch(params.keys);
    tensor_map_prefetch(params.values);
    for (int i = 0; i < kQueryStages; ++i) {
      mbarrier_init(&shared.queries_full[i], 1);
      mbarrier_init(&shared.queries_empty[i], kConsumerWarps);
    }
    for (int i = 0; i < kStages; ++i) {
      mbarrier_init(&shared.keys_full[i], 1);
      mbarrier_init(&shared.values_full[i], 1);
      mbarrier_init(&shared.keys_empty[i], kConsumerWarps);
      mbarrier_init(&shared.values_empty[i], kConsumerWarps);
    }
    mbarrier_init_fence();
#ifdef MOERUN_WAIT_DEADLINE
    shared.finished = 0;
#endif
  }
  __syncthreads();
  dependency_wait();
  dependents_launch();
  const int group = threadIdx.x / kGroupThreads;
  if (group == 0) {
    registers_release<kProducerRegisters>();
    if (threadIdx.x < kWarpSize) produce<T, kDim, kOptions>(params, shared);
#if defined(MOERUN_WAIT_DEADLINE) && !defined(NO_DOG)
    if (threadIdx.x == kWarpSize) {
      const long long begin = clock64();
      while (*(volatile unsigned int*)&shared.finished < kConsumerWarps) {
        __nanosleep(2000);
        if (clock64() - begin > 3000000000ll) {
          WaitReport* const report = wait_report;
          if (atomicCAS_system(&report->taken, 0u, 1u) == 0) {
            report->kind = 2, report->block = blockIdx.x, report->thread = threadIdx.x;
            for (int i = 0; i < 12; ++i) report->marks[i] = *(volatile unsigned int*)&shared.marks[i];
            __threadfence_system();
          }
          __trap();
        }
      }
    }
#endif
  } else {
    registers_acquire<kConsumerRegisters>();
    consume<T, kDim, kOptions>(params, shared, group - 1);
  }
}

}  // namespace

// ---------------------------------------------------------------- launchers

template <int kOptions>
void launch_variant(DType dtype, const DevicePlan& plan, const AttentionArgs& args, int32_t num_sms,
                    cudaStream_t stream) {
  if (plan.num_prefill_seqs == 0) return;
  const KvLayer& kv = args.kv;
  const int32_t group = args.num_heads / kv.num_kv_heads, tokens_a_tile = kRows / group;
  if (kv.block_size % kMinBlockSize != 0)
    throw Error("attention on the GPU takes blocks of a multiple of 32 tokens, not " +
                std::to_string(kv.block_size));
  if (tokens_a_tile == 0)
    throw Error("attention on the GPU takes at most 128 query heads for each key head, not " +
                std::to_string(group));
  const int32_t piece = std::gcd(kKeys, kv.block_size);
  Params params{.queries = tensor_map<3>(args.q.data, {kv.head_dim, args.num_heads, args.q.rows},
                                         {64, group, tokens_a_tile}),
                .keys = tensor_map<2>(kv.k.data, {kv.head_dim, kv.k.rows}, {64, piece}),
                .values = tensor_map<2>(kv.v.data, {kv.head_dim, kv.v.rows}, {64, piece}),
                .args = args,
                .cu_seqlens_q = plan.cu_seqlens_q.data,
                .context_lens = plan.context_lens.data,
                .block_table = plan.block_table.data,
                .max_blocks = plan.max_blocks,
                .num_seqs = plan.num_prefill_seqs,
                .max_levels = ceil_div(plan.max_query_len, tokens_a_tile),
                .piece = piece};
  const int32_t num_tiles = params.max_levels * plan.num_prefill_seqs * kv.num_kv_heads;
  with_head(dtype, kv.head_dim, [&]<class T, int kDim>() {
    constexpr auto* kernel = attention_prefill_kernel<T, kDim, kOptions>;
    CUDA_CHECK(
        cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, sizeof(Shared<kDim>)));
    launch_dependent(kernel, static_cast<unsigned>(std::min(num_tiles, num_sms)), kThreads,
                     sizeof(Shared<kDim>), stream, params);
  });
}

}  // namespace moerun::variants
