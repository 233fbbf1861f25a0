// A tile is 128 query rows of one key head: row r is query r / group of the chunk and head r % group of the
// group, so that short chunks fill tiles too and a tile spans few positions. A producer warpgroup copies
// queries, keys and values from their pages to shared memory; two consumer warpgroups hold 64 rows each.
// While the softmax of one key tile runs, the product of the weights before it with their values does too.
#include "kernels/cuda/attention_prefill.h"

#include <algorithm>

#include "kernels/cuda/attention_heads.cuh"
#include "kernels/cuda/hopper.cuh"

namespace moerun::present {
namespace {

using namespace cuda;

constexpr int kGroupThreads = 128, kConsumers = 2, kThreads = (1 + kConsumers) * kGroupThreads;
constexpr int kConsumerWarps = kConsumers * kGroupThreads / kWarpSize;
constexpr int kRows = kConsumers * 64, kRowBytes = 128;
constexpr int kKeys = 128;  // a tile of keys
constexpr int kStages = 2;
constexpr int kProducerRegisters = 56, kConsumerRegisters = 224;
constexpr int kRowsAPass = kGroupThreads / 8;  // eight threads copy a row's 128 bytes

struct Params {
  AttentionArgs args;
  const int32_t *cu_seqlens_q, *context_lens, *block_table;
  int32_t max_blocks, num_seqs, max_tiles;  // tiles of the longest chunk
};

/// Operands lie in column blocks of 64 elements, 128 bytes a row, with the 128-byte swizzle.
template <int kDim>
struct Shared {
  alignas(1024) uint8_t queries[kRows * kDim * 2];
  alignas(1024) uint8_t keys[kStages][kKeys * kDim * 2];
  alignas(1024) uint8_t values[kStages][kKeys * kDim * 2];
  uint64_t queries_full, queries_empty;
  uint64_t keys_full[kStages], keys_empty[kStages], values_full[kStages], values_empty[kStages];
};

struct Ring {
  uint32_t stage = 0, parity = 0;
  __device__ void advance() {
    if (++stage == kStages) stage = 0, parity ^= 1;
  }
};

struct Tile {
  int32_t sequence, kv_head;
  int32_t first_row, num_rows;  // of the chunk's [queries · group] rows
  int32_t first_token, first_position, context, num_key_tiles;
};

// ---------------------------------------------------------------- kernels

/// Work in falling order of length: the last tiles of the chunks first. False: no such tile.
__device__ bool tile_of(const Params& params, int32_t work, int32_t group, Tile& tile) {
  const int32_t kv_heads = params.args.kv.num_kv_heads, a_level = kv_heads * params.num_seqs;
  const int32_t place = work % a_level;
  tile.sequence = place / kv_heads;
  tile.kv_head = place % kv_heads;
  tile.first_row = (params.max_tiles - 1 - work / a_level) * kRows;
  tile.first_token = params.cu_seqlens_q[tile.sequence];
  const int32_t queries = params.cu_seqlens_q[tile.sequence + 1] - tile.first_token;
  tile.num_rows = queries * group;
  if (tile.first_row >= tile.num_rows) return false;
  tile.context = params.context_lens[tile.sequence];
  tile.first_position = tile.context - queries;
  const int32_t last_row = min(tile.first_row + kRows, tile.num_rows) - 1;
  tile.num_key_tiles = (tile.first_position + last_row / group) / kKeys + 1;
  return true;
}

__device__ __forceinline__ uint32_t swizzled(int row, int piece) {
  return row * kRowBytes + ((piece ^ (row & 7)) << 4);
}

template <class T, int kDim>
__device__ void produce(const Params& params, Shared<kDim>& shared) {
  constexpr int kColumnBlocks = kDim / 64, kPasses = kKeys / kRowsAPass;
  const AttentionArgs& args = params.args;
  const KvLayer& kv = args.kv;
  const int32_t group = args.num_heads / kv.num_kv_heads;
  const int32_t num_work = params.max_tiles * params.num_seqs * kv.num_kv_heads;
  const int thread = threadIdx.x, piece = thread % 8, row0 = thread / 8;
  const uint32_t at = swizzled(row0, piece);  // passes are 16 rows apart: the same swizzle
  const T* const queries = static_cast<const T*>(args.q.data) + piece * 8;
  const T* const keys = static_cast<const T*>(kv.k.data) + piece * 8;
  const T* const values = static_cast<const T*>(kv.v.data) + piece * 8;
  Ring ring;
  uint32_t queries_parity = 0;
  for (int32_t work = blockIdx.x; work < num_work; work += gridDim.x) {
    Tile tile;
    if (!tile_of(params, work, group, tile)) continue;
    mbarrier_wait(&shared.queries_empty, queries_parity ^ 1);
    queries_parity ^= 1;
#pragma unroll 4
    for (int i = 0; i < kRows / kRowsAPass; ++i) {
      const int32_t row = tile.first_row + row0 + i * kRowsAPass;
      const bool valid = row < tile.num_rows;
      const int64_t from = valid ? static_cast<int64_t>(tile.first_token + row / group) * args.num_heads +
                                       tile.kv_head * group + row % group
                                 : 0;
#pragma unroll
      for (int c = 0; c < kColumnBlocks; ++c)
        copy16_async(smem_address(shared.queries) + c * kRows * kRowBytes + i * kRowsAPass * kRowBytes + at,
                     queries + from * kDim + c * 64, valid);
    }
    copies_arrive(&shared.queries_full);

    const int32_t* const table = params.block_table + static_cast<int64_t>(tile.sequence) * params.max_blocks;
    for (int32_t j = 0; j < tile.num_key_tiles; ++j) {
      int32_t rows[kPasses];  // of the cache; −1: past the context
#pragma unroll
      for (int i = 0; i < kPasses; ++i) {
        const int32_t key = j * kKeys + row0 + i * kRowsAPass;
        rows[i] = key < tile.context ? static_cast<int32_t>(cache_row(kv, table[key / kv.block_size],
                                                                      key % kv.block_size, tile.kv_head))
                                     : -1;
      }
      const auto copy = [&](const uint8_t* to, const T* from) {
#pragma unroll
        for (int i = 0; i < kPasses; ++i)
#pragma unroll
          for (int c = 0; c < kColumnBlocks; ++c)
            copy16_async(smem_address(to) + c * kKeys * kRowBytes + i * kRowsAPass * kRowBytes + at,
                         from + static_cast<int64_t>(max(rows[i], 0)) * kDim + c * 64, rows[i] >= 0);
      };
      mbarrier_wait(&shared.keys_empty[ring.stage], ring.parity ^ 1);
      copy(shared.keys[ring.stage], keys);
      copies_arrive(&shared.keys_full[ring.stage]);
      mbarrier_wait(&shared.values_empty[ring.stage], ring.parity ^ 1);
      copy(shared.values[ring.stage], values);
      copies_arrive(&shared.values_full[ring.stage]);
      ring.advance();
    }
  }
}

/// s [64, kKeys] = queries · keysᵀ: enqueued, not waited for.
template <class T, int kDim>
__device__ __forceinline__ void score(float (&s)[kKeys / 2], uint64_t queries, uint64_t keys) {
#pragma unroll
  for (float& v : s) v = 0;
  wgmma_fence();
#pragma unroll
  for (int step = 0; step < kDim / 16; ++step)
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

template <class T, int kDim>
__device__ void consume(const Params& params, Shared<kDim>& shared, int consumer) {
  const AttentionArgs& args = params.args;
  const int32_t group = args.num_heads / args.kv.num_kv_heads;
  const int32_t num_work = params.max_tiles * params.num_seqs * args.kv.num_kv_heads;
  const int thread = threadIdx.x % kGroupThreads, warp = thread / kWarpSize, lane = thread % kWarpSize;
  const bool elected = lane == 0;
  const float scale = args.scale * kLog2E;
  const uint64_t queries = wgmma_descriptor(smem_address(shared.queries) + consumer * 64 * kRowBytes);
  const uint64_t keys0 = wgmma_descriptor(smem_address(shared.keys));
  const uint64_t values0 = wgmma_descriptor_transposed(smem_address(shared.values), kKeys * kRowBytes);
  constexpr uint64_t kStageStep = kKeys * kDim * 2 >> 4;
  Ring key_ring, value_ring;
  uint32_t queries_parity = 0;
  for (int32_t work = blockIdx.x; work < num_work; work += gridDim.x) {
    Tile tile;
    if (!tile_of(params, work, group, tile)) continue;
    const int32_t first_row = tile.first_row + consumer * 64;
    const int32_t row = first_row + warp * 16 + lane / 4;
    const int32_t positions[2] = {tile.first_position + row / group, tile.first_position + (row + 8) / group};
    const int32_t lowest = tile.first_position + first_row / group;
    float s[kKeys / 2], o[kDim / 2] = {}, shrink[2];
    uint32_t weights[kKeys / 16][4];
    Softmax softmax;
    const auto soften = [&](int32_t j) {
      if ((j + 1) * kKeys - 1 > lowest) mask(s, j * kKeys, positions);
      softmax.take(s, scale, shrink);
    };
    const auto release = [&](uint64_t* barrier) {
      if (elected) mbarrier_arrive(barrier);
    };

    mbarrier_wait(&shared.queries_full, queries_parity);
    queries_parity ^= 1;
    mbarrier_wait(&shared.keys_full[key_ring.stage], key_ring.parity);
    fence_async_proxy();  // what the producer brought came by ordinary copies
    score<T, kDim>(s, queries, keys0 + key_ring.stage * kStageStep);
    wgmma_wait<0>();
    wgmma_settled(s);
    release(&shared.keys_empty[key_ring.stage]);
    key_ring.advance();
    soften(0);
    pack_weights<T>(s, weights);
    for (int32_t j = 1; j < tile.num_key_tiles; ++j) {
      mbarrier_wait(&shared.keys_full[key_ring.stage], key_ring.parity);
      mbarrier_wait(&shared.values_full[value_ring.stage], value_ring.parity);
      fence_async_proxy();
      score<T, kDim>(s, queries, keys0 + key_ring.stage * kStageStep);
      add_values<T, kDim>(o, weights, values0 + value_ring.stage * kStageStep);
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
    release(&shared.queries_empty);
    mbarrier_wait(&shared.values_full[value_ring.stage], value_ring.parity);
    fence_async_proxy();
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
      const int32_t out_row = row + 8 * h;
      T* const out = static_cast<T*>(args.out.data) +
                     (static_cast<int64_t>(tile.first_token + out_row / group) * args.num_heads +
                      tile.kv_head * group + out_row % group) *
                         kDim;
#pragma unroll
      for (int j = 0; j < kDim / 8; j += 4) {
        uint32_t w[4];
#pragma unroll
        for (int u = 0; u < 4; ++u)
          w[u] = pack_floats<T>(o[4 * (j + u) + 2 * h] * inverse, o[4 * (j + u) + 2 * h + 1] * inverse);
        transpose_quad(w);
        if (out_row < tile.num_rows)
          *reinterpret_cast<uint4*>(out + 8 * (j + lane % 4)) = make_uint4(w[0], w[1], w[2], w[3]);
      }
    }
  }
}

template <class T, int kDim>
__global__ void __launch_bounds__(kThreads, 1)
    attention_prefill_kernel(const __grid_constant__ Params params) {
  extern __shared__ __align__(1024) uint8_t shared_bytes[];
  Shared<kDim>& shared = *reinterpret_cast<Shared<kDim>*>(shared_bytes);
  if (threadIdx.x == 0) {
    mbarrier_init(&shared.queries_full, kGroupThreads);
    mbarrier_init(&shared.queries_empty, kConsumerWarps);
    for (int i = 0; i < kStages; ++i) {
      mbarrier_init(&shared.keys_full[i], kGroupThreads);
      mbarrier_init(&shared.values_full[i], kGroupThreads);
      mbarrier_init(&shared.keys_empty[i], kConsumerWarps);
      mbarrier_init(&shared.values_empty[i], kConsumerWarps);
    }
    mbarrier_init_fence();
  }
  __syncthreads();
  dependency_wait();
  dependents_launch();
  const int group = threadIdx.x / kGroupThreads;
  if (group == 0) {
    registers_release<kProducerRegisters>();
    produce<T, kDim>(params, shared);
  } else {
    registers_acquire<kConsumerRegisters>();
    consume<T, kDim>(params, shared, group - 1);
  }
}

}  // namespace

// ---------------------------------------------------------------- launchers

void launch_attention_prefill(DType dtype, const DevicePlan& plan, const AttentionArgs& args, int32_t num_sms,
                              cudaStream_t stream) {
  if (plan.num_prefill_seqs == 0) return;
  const int32_t group = args.num_heads / args.kv.num_kv_heads;
  const int32_t max_tiles = ceil_div(plan.max_query_len * group, kRows);
  const Params params{.args = args,
                      .cu_seqlens_q = plan.cu_seqlens_q.data,
                      .context_lens = plan.context_lens.data,
                      .block_table = plan.block_table.data,
                      .max_blocks = plan.max_blocks,
                      .num_seqs = plan.num_prefill_seqs,
                      .max_tiles = max_tiles};
  const int32_t num_work = max_tiles * plan.num_prefill_seqs * args.kv.num_kv_heads;
  with_head(dtype, args.kv.head_dim, [&]<class T, int kDim>() {
    constexpr auto* kernel = attention_prefill_kernel<T, kDim>;
    CUDA_CHECK(
        cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, sizeof(Shared<kDim>)));
    launch_dependent(kernel, static_cast<unsigned>(std::min(num_work, num_sms)), kThreads,
                     sizeof(Shared<kDim>), stream, params);
  });
}

}  // namespace moerun::present
