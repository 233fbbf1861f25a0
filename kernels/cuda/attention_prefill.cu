// A tile is 128 query rows of one key head: all its query heads for as many positions as fit, so that short
// chunks fill tiles too and a tile spans few positions. One producer warp has the tensor copy engine bring
// queries, keys and values; two consumer warpgroups hold 64 rows each. While the softmax of one key tile
// runs, the product of the weights before it with their values does too, and the warpgroups take turns to
// enqueue products, so that one's softmax lies beside the other's products. Where chunks are long two blocks
// of a cluster take adjacent tiles, and each brings half of the keys and values for both.
//
// Keys and values in e4m3 are brought as they are; three more warps widen them to T, and from there on all is
// as with 16 bits, the bits too.
#include "kernels/cuda/attention_prefill.h"

#include <algorithm>
#include <numeric>

#include "kernels/cuda/limits.h"
#include "kernels/cuda/prefill_produce.cuh"
#include "kernels/cuda/wgmma.cuh"

namespace moerun {
namespace {

using namespace cuda;

constexpr int kMinBlockSize = limits::kBlockTokens;
constexpr int kPairedTiles = 6;  // of a mean chunk from which on blocks share keys and values
constexpr int kTurnBarrier = 3;  // and the next: named barriers by which the consumers take turns

// ---------------------------------------------------------------- kernels

/// s [64, kKeys] = queries · keysᵀ: enqueued, not waited for.
template <class T, int kDim, int kKeys = kKeysOf<kDim>>
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
template <class T, int kDim, int kKeys = kKeysOf<kDim>>
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
  template <int kScores>
  __device__ __forceinline__ void take(float (&s)[kScores], float scale, float (&shrink)[2]) {
    constexpr int kKeys = 2 * kScores;
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
template <int kScores>
__device__ __forceinline__ void mask(float (&s)[kScores], int32_t first_key, const int32_t (&positions)[2]) {
  const int t = threadIdx.x % 4;
#pragma unroll
  for (int i = 0; i < kScores; ++i) {
    const int32_t key = first_key + i / 4 * 8 + 2 * t + i % 2;
    if (key > positions[i / 2 % 2]) s[i] = -INFINITY;
  }
}

template <class T, int kSteps>
__device__ __forceinline__ void pack_weights(const float (&s)[8 * kSteps], uint32_t (&weights)[kSteps][4]) {
#pragma unroll
  for (int step = 0; step < kSteps; ++step)
#pragma unroll
    for (int i = 0; i < 4; ++i)
      weights[step][i] = pack_floats<T>(s[8 * step + 2 * i], s[8 * step + 2 * i + 1]);
}

/// Zeros in the place of values past the context: pages come whole, and a weight of 0 times a NaN that
/// happens to lie there would be one. Both consumers do it, each for itself.
template <int kDim>
__device__ __forceinline__ void clear_values(uint8_t* values, int32_t first_row, int consumer) {
  constexpr int kKeys = kKeysOf<kDim>;
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

template <class T, class C, int kDim, int kBlocks>
__device__ void consume(const PrefillParams& params, PrefillShared<C, kDim>& shared, int consumer) {
  constexpr int kKeys = kKeysOf<kDim>;
  const AttentionArgs& args = params.args;
  const int32_t group = args.num_heads / args.kv.num_kv_heads;
  const int thread = threadIdx.x % kGroupThreads, warp = thread / kWarpSize, lane = thread % kWarpSize;
  const float scale = args.scale * args.kv.k_scale * kLog2E;
  const int32_t row = consumer * 64 + warp * 16 + lane / 4;
  const int32_t tokens[2] = {row / group, (row + 8) / group};  // within the tile
  const uint64_t queries0 = wgmma_descriptor(smem_address(shared.queries) + consumer * 64 * kRowBytes);
  const uint64_t keys0 = wgmma_descriptor(smem_address(shared.keys));
  const uint64_t values0 = wgmma_descriptor_transposed(smem_address(shared.values), kKeys * kRowBytes);
  constexpr uint64_t kStageStep = kKeys * kDim * 2 >> 4, kQueryStep = kRows * kDim * 2 >> 4;
  Ring<kStages> key_ring, value_ring;
  Ring<kQueryStages<kDim>> query_ring;
  constexpr int kWriters = PrefillShared<C, kDim>::kWidens ? 1 : kBlocks;
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
    release<kWriters>(&shared.keys_empty[key_ring.stage]);
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
      release<kWriters>(&shared.keys_empty[key_ring.stage]);
      key_ring.advance();
      soften(j);
      wgmma_wait<0>();
      wgmma_settled(o);
      release<kWriters>(&shared.values_empty[value_ring.stage]);
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
    release<kWriters>(&shared.values_empty[value_ring.stage]);
    value_ring.advance();

#pragma unroll
    for (int h = 0; h < 2; ++h) {
      float total = softmax.total[h];
      total += __shfl_xor_sync(kFullMask, total, 1);
      total += __shfl_xor_sync(kFullMask, total, 2);
      const float inverse = 1 / total * args.kv.v_scale;
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

template <class T, class C, int kDim, int kBlocks>
__global__ void __launch_bounds__(kThreads, 1) __cluster_dims__(kBlocks)
    attention_prefill_kernel(const __grid_constant__ PrefillParams params) {
  extern __shared__ __align__(1024) uint8_t shared_bytes[];
  auto& shared = *reinterpret_cast<PrefillShared<C, kDim>*>(shared_bytes);
  if (threadIdx.x == 0) {
    tensor_map_prefetch(params.queries);
    if constexpr (!shared.kWidens) {
      tensor_map_prefetch(params.keys);
      tensor_map_prefetch(params.values);
    }
    shared.init(kBlocks);
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
    registers_release<shared.kProducerRegisters>();
    if (threadIdx.x < kWarpSize)
      produce<C, kDim, kBlocks>(params, shared);
    else if constexpr (shared.kWidens)
      widen_tiles<T, kDim, kBlocks>(shared);
  } else {
    registers_acquire<shared.kConsumerRegisters>();
    consume<T, C, kDim, kBlocks>(params, shared, group - 1);
  }
  if constexpr (kBlocks > 1) meet();  // the other block sends and arrives here until it ends
}

}  // namespace

// ---------------------------------------------------------------- launchers

namespace {

template <class T, class C, int kDim, int kBlocks>
void launch_tiles(const DevicePlan& plan, const AttentionArgs& args, int32_t num_sms, cudaStream_t stream) {
  const KvLayer& kv = args.kv;
  const int32_t group = args.num_heads / kv.num_kv_heads;
  const int32_t tokens = kRows / group, tokens_a_tile = tokens * kBlocks;
  const int32_t piece = std::gcd(kKeysOf<kDim> / kBlocks, kv.block_size);
  using Shared = PrefillShared<C, kDim>;
  const auto cache_map = [&](const Tensor& rows) {
    return Shared::kWidens ? CUtensorMap{} : tensor_map<2>(rows.data, {kDim, rows.rows}, {64, piece});
  };
  const PrefillParams params{
      .queries = tensor_map<3>(args.q.data, {kDim, args.num_heads, args.q.rows}, {64, group, tokens}),
      .keys = cache_map(kv.k),
      .values = cache_map(kv.v),
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
  constexpr auto* kernel = attention_prefill_kernel<T, C, kDim, kBlocks>;
  CUDA_CHECK(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, sizeof(Shared)));
  launch_dependent(kernel, static_cast<unsigned>(kBlocks * std::min(num_tiles, num_sms / kBlocks)), kThreads,
                   sizeof(Shared), stream, params);
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
  with_cache(dtype, kv, [&]<class T, class C, int kDim>() {
    if (paired)
      launch_tiles<T, C, kDim, kPair>(plan, args, num_sms, stream);
    else
      launch_tiles<T, C, kDim, 1>(plan, args, num_sms, stream);
  });
}

}  // namespace moerun
