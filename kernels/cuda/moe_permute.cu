#include <algorithm>
#include <utility>

#include "kernels/cuda/hopper.cuh"
#include "kernels/cuda/limits.h"
#include "kernels/cuda/moe_permute.h"

namespace moerun {
namespace {

using namespace cuda;

constexpr int kThreads = 1024, kWarps = kThreads / kWarpSize;
constexpr int kMaxRounds = 4;              // pairs a thread
constexpr int kBlockPairs = kThreads / 2;  // up to here one block does all,
constexpr int kClusterBlocks = 8;          // up to kClusterPairs a cluster of these
constexpr int kClusterPairs = kClusterBlocks * kThreads;
constexpr int kManyPairs = 128 * kThreads;  // up to here a chunk is a pair a thread
constexpr int kMaxExperts = limits::kMaxExperts;
constexpr int kRankBits = 23;  // of a ranked pair; the expert is above
constexpr uint32_t kNotLocal = ~0u;

struct PermuteParams {
  MoePermuteArgs args;
  int32_t num_chunks = 1;  ///< a block has one of them
  int32_t run = 0;         ///< consecutive pairs of a warp
};

// ---------------------------------------------------------------- kernels

/// This thread's pairs of the block's chunk, one in each round of the warp's run.
struct Pairs {
  int32_t first;
  int32_t left;  ///< pairs from there to the end of the run, or of all

  __device__ explicit Pairs(const PermuteParams& p) {
    const auto lane = static_cast<int32_t>(threadIdx.x % kWarpSize);
    const auto warp = static_cast<int32_t>(blockIdx.x * kWarps + threadIdx.x / kWarpSize);
    first = warp * p.run + lane;
    left = min(p.run - lane, p.args.num_tokens * p.args.k - first);
  }
  __device__ int32_t pair(int round) const { return first + round * kWarpSize; }
  __device__ bool has(int round) const { return round * kWarpSize < left; }
};

/// expert[round]: the pair's expert where it is local, else −1; rank[round]: the pairs before it in the chunk
/// that have the same expert. Returns the chunk's pairs of expert threadIdx.x. All global loads are in flight
/// at once; the sort is stable because a warp's rounds go in order and warps' counts are summed in order.
template <int kRounds>
__device__ int32_t rank_chunk(const PermuteParams& p, const Pairs& pairs, int32_t* counts,
                              int32_t (&expert)[kRounds], int32_t (&rank)[kRounds]) {
  const MoePermuteArgs& args = p.args;
  const int32_t num_experts = args.num_experts;
  const int lane = threadIdx.x % kWarpSize;
  int32_t* const mine = counts + threadIdx.x / kWarpSize * num_experts;  // of counts [warps, num_experts]
#pragma unroll
  for (int r = 0; r < kRounds; ++r) expert[r] = pairs.has(r) ? args.topk_ids[pairs.pair(r)] : -1;
  for (int i = lane; i < num_experts; i += kWarpSize) mine[i] = 0;
#pragma unroll
  for (int r = 0; r < kRounds; ++r) {
    if (expert[r] >= 0 && args.local_slot[expert[r]] < 0) expert[r] = -1;
  }
  __syncwarp();
#pragma unroll
  for (int r = 0; r < kRounds; ++r) {
    if (r * kWarpSize >= p.run) break;
    const unsigned same = __match_any_sync(kFullMask, expert[r] >= 0 ? expert[r] : -1 - lane);
    const int32_t before = expert[r] >= 0 ? mine[expert[r]] : 0;
    rank[r] = before + __popc(same & ((1u << lane) - 1));
    __syncwarp();
    if (expert[r] >= 0 && lane == __ffs(same) - 1) mine[expert[r]] = before + __popc(same);
    __syncwarp();
  }
  __syncthreads();
  int32_t of_chunk = 0;
  if (static_cast<int32_t>(threadIdx.x) < num_experts) {
    int32_t* const column = counts + threadIdx.x;
    int32_t of_warp[kWarps];
#pragma unroll
    for (int w = 0; w < kWarps; ++w) of_warp[w] = column[w * num_experts];
#pragma unroll
    for (int w = 0; w < kWarps; ++w) {
      column[w * num_experts] = of_chunk;
      of_chunk += of_warp[w];
    }
  }
  __syncthreads();
#pragma unroll
  for (int r = 0; r < kRounds; ++r) {
    if (expert[r] >= 0) rank[r] += mine[expert[r]];
  }
  return of_chunk;
}

__global__ void __launch_bounds__(kThreads, 1) rank_kernel(const __grid_constant__ PermuteParams p) {
  extern __shared__ int32_t counts[];  // [warps, num_experts]
  dependency_wait();
  dependents_launch();
  const Pairs pairs(p);
  int32_t expert[kMaxRounds], rank[kMaxRounds];
  const int32_t of_chunk = rank_chunk(p, pairs, counts, expert, rank);
  const int32_t num_experts = p.args.num_experts;
  if (static_cast<int32_t>(threadIdx.x) < num_experts)
    p.args.plan.chunk_counts[static_cast<int32_t>(blockIdx.x) * num_experts + threadIdx.x] = of_chunk;
#pragma unroll
  for (int r = 0; r < kMaxRounds; ++r) {
    if (!pairs.has(r)) continue;
    p.args.plan.ranked[pairs.pair(r)] =
        expert[r] < 0 ? kNotLocal
                      : static_cast<uint32_t>(expert[r]) << kRankBits | static_cast<uint32_t>(rank[r]);
  }
}

/// Exclusive prefix sums over the block's threads of two values at once; `totals` holds the sums of all.
__device__ int2 exclusive_scan(int2 value, int2* warp_sums, int2* totals) {
  const int lane = threadIdx.x % kWarpSize, warp = threadIdx.x / kWarpSize;
  int2 inclusive = value;
  for (int d = 1; d < kWarpSize; d *= 2) {
    const int x = __shfl_up_sync(kFullMask, inclusive.x, d), y = __shfl_up_sync(kFullMask, inclusive.y, d);
    if (lane >= d) inclusive.x += x, inclusive.y += y;
  }
  if (lane == kWarpSize - 1) warp_sums[warp] = inclusive;
  __syncthreads();
  if (warp == 0) {
    const int2 own = warp_sums[lane];
    int2 sum = own;
    for (int d = 1; d < kWarpSize; d *= 2) {
      const int x = __shfl_up_sync(kFullMask, sum.x, d), y = __shfl_up_sync(kFullMask, sum.y, d);
      if (lane >= d) sum.x += x, sum.y += y;
    }
    warp_sums[lane] = make_int2(sum.x - own.x, sum.y - own.y);
    if (lane == kWarpSize - 1) *totals = sum;
  }
  __syncthreads();
  const int2 before = warp_sums[warp];
  return make_int2(before.x + inclusive.x - value.x, before.y + inclusive.y - value.y);
}

/// How an expert's rows are cut: nearly equal tiles, in whole steps.
struct Cut {
  int32_t tiles, rows_each;
  __device__ Cut(const MoePermuteArgs& args, int32_t count)
      : tiles(ceil_div(count, args.tiling.max_rows)),
        rows_each(tiles == 0 ? 0 : round_up(ceil_div(count, tiles), args.tiling.row_step)) {}
};

/// Thread e gives the rows of expert e in all chunks. Returns the expert's first row and leaves its tiles in
/// the plan: a block those of every num_chunks-th expert, block 0 the counters.
__device__ int32_t first_row(const PermuteParams& p, int32_t count) {
  __shared__ int2 warp_sums[kWarps], totals;
  const MoePermuteArgs& args = p.args;
  const auto expert = static_cast<int32_t>(threadIdx.x), block = static_cast<int32_t>(blockIdx.x);
  const auto [tiles, rows_each] = Cut(args, count);
  const int2 start = exclusive_scan(make_int2(count, tiles), warp_sums, &totals);
  if (expert < args.num_experts && expert % p.num_chunks == block) {
    const int32_t slot = args.local_slot[expert];
    for (int32_t t = 0; t < tiles; ++t) {
      const int32_t first = t / MoeTile::kMaxGroup * MoeTile::kMaxGroup;
      args.plan.tiles[start.y + t] = {
          .slot = slot,
          .row_begin = start.x + t * rows_each,
          .rows = min(rows_each, count - t * rows_each),
          .group = (start.y + first) * 16 + min(MoeTile::kMaxGroup, tiles - first)};
      args.plan.tile_arrivals[start.y + t] = 0;
    }
    if (args.expert_tokens) args.expert_tokens[expert] += count;
  }
  if (block == 0 && threadIdx.x == 0)
    *args.plan.counters = {.num_tiles = totals.y, .num_rows = totals.x, .next_ticket = 0, .unused = 0};
  return start.x;
}

__global__ void __launch_bounds__(kThreads, 1) scatter_kernel(const __grid_constant__ PermuteParams p) {
  __shared__ int2 sums[kThreads];  // (rows in all chunks, rows before this one) of a part of the chunks
  __shared__ int32_t next_row[kMaxExperts];  // the expert's first row of this chunk
  const MoePermuteArgs& args = p.args;
  const int32_t num_experts = args.num_experts;
  const auto thread = static_cast<int32_t>(threadIdx.x);
  dependency_wait();
  dependents_launch();
  const Pairs pairs(p);
  uint32_t ranked[kMaxRounds];
  float weight[kMaxRounds];
#pragma unroll
  for (int r = 0; r < kMaxRounds; ++r) {
    const bool has = pairs.has(r);
    ranked[r] = has ? args.plan.ranked[pairs.pair(r)] : kNotLocal;
    weight[r] = has ? args.topk_weights[pairs.pair(r)] : 0;
  }

  const int32_t parts = kThreads / num_experts, part = thread / num_experts, expert = thread % num_experts;
  int2 sum = make_int2(0, 0);
  if (part < parts) {
#pragma unroll 8
    for (int32_t c = part; c < p.num_chunks; c += parts) {
      const int32_t of_chunk = args.plan.chunk_counts[c * num_experts + expert];
      sum.x += of_chunk;
      if (c < static_cast<int32_t>(blockIdx.x)) sum.y += of_chunk;
    }
  }
  sums[thread] = sum;
  __syncthreads();
  sum = make_int2(0, 0);
  if (thread < num_experts) {
    for (int32_t i = 0; i < parts; ++i) {
      const int2 other = sums[i * num_experts + thread];
      sum.x += other.x, sum.y += other.y;
    }
  }
  const int32_t first = first_row(p, sum.x);
  if (thread < num_experts) next_row[thread] = first + sum.y;
  __syncthreads();
#pragma unroll
  for (int r = 0; r < kMaxRounds; ++r) {
    if (ranked[r] == kNotLocal) continue;
    const auto rank = static_cast<int32_t>(ranked[r] & ((1u << kRankBits) - 1));
    args.plan.rows[next_row[ranked[r] >> kRankBits] + rank] = {.pair = pairs.pair(r), .weight = weight[r]};
  }
}

/// Both at once: a cluster has all the chunks, a pair a thread.
template <int kBlocks>
__global__ void __launch_bounds__(kThreads, 1) __cluster_dims__(kBlocks)
    permute_kernel(const __grid_constant__ PermuteParams p) {
  extern __shared__ int32_t counts[];  // [warps, num_experts], then [blocks, num_experts] of the chunks
  __shared__ int32_t next_row[kMaxExperts];
  const MoePermuteArgs& args = p.args;
  const auto thread = static_cast<int32_t>(threadIdx.x);
  if constexpr (kBlocks > 1) cluster_arrive();  // all blocks must run before one writes into another
  dependency_wait();
  dependents_launch();
  if constexpr (kBlocks > 1) cluster_wait();
  const Pairs pairs(p);
  const float weight = pairs.has(0) ? args.topk_weights[pairs.pair(0)] : 0;
  int32_t expert[1], rank[1];
  int32_t count = rank_chunk(p, pairs, counts, expert, rank), before = 0;
  if constexpr (kBlocks > 1) {
    int32_t* const of_chunks = counts + kWarps * args.num_experts + thread;
    const auto own = static_cast<int>(cluster_rank());
    if (thread < args.num_experts) {
      for (int block = 0; block < kBlocks; ++block)
        store_in_cluster(of_chunks + own * args.num_experts, block, count);
    }
    __syncwarp();
    cluster_arrive();
    cluster_wait();
    count = 0;
    if (thread < args.num_experts) {
#pragma unroll
      for (int block = 0; block < kBlocks; ++block) {
        const int32_t of_chunk = of_chunks[block * args.num_experts];
        if (block < own) before += of_chunk;
        count += of_chunk;
      }
    }
  }
  const int32_t first = first_row(p, count);
  if (thread < args.num_experts) next_row[thread] = first + before;
  __syncthreads();
  if (expert[0] >= 0)
    args.plan.rows[next_row[expert[0]] + rank[0]] = {.pair = pairs.pair(0), .weight = weight};
}

// ---------------------------------------------------------------- launchers

struct PlanLayout {
  size_t rows, tiles, arrivals, counters, chunks, ranked, bytes;
};

PlanLayout plan_layout(int64_t max_tokens, int32_t k, int32_t num_experts) {
  const auto pairs = static_cast<size_t>(max_tokens) * static_cast<size_t>(k),
             experts = static_cast<size_t>(num_experts);
  const size_t max_tiles = pairs / 64 + experts;  // MoeTiling::max_rows is at least 64
  const size_t max_chunks = ceil_div<size_t>(pairs, kThreads);
  PlanLayout layout{};
  size_t at = 0;
  const auto take = [&](size_t bytes) { return std::exchange(at, round_up<size_t>(at + bytes, 256)); };
  layout.counters = take(sizeof(MoeCounters));
  layout.rows = take(pairs * sizeof(RoutedRow));
  layout.tiles = take(max_tiles * sizeof(MoeTile));
  layout.arrivals = take(max_tiles * sizeof(int32_t));
  layout.chunks = take(max_chunks * experts * sizeof(int32_t));
  layout.ranked = take(pairs * sizeof(uint32_t));
  layout.bytes = at;
  return layout;
}

}  // namespace

size_t moe_plan_bytes(int64_t max_tokens, int32_t k, int32_t num_experts) {
  return plan_layout(max_tokens, k, num_experts).bytes;
}

MoePlan moe_plan_in(void* workspace, int64_t max_tokens, int32_t k, int32_t num_experts) {
  const PlanLayout layout = plan_layout(max_tokens, k, num_experts);
  char* const base = static_cast<char*>(workspace);
  return {.rows = reinterpret_cast<RoutedRow*>(base + layout.rows),
          .tiles = reinterpret_cast<MoeTile*>(base + layout.tiles),
          .tile_arrivals = reinterpret_cast<int32_t*>(base + layout.arrivals),
          .counters = reinterpret_cast<MoeCounters*>(base + layout.counters),
          .chunk_counts = reinterpret_cast<int32_t*>(base + layout.chunks),
          .ranked = reinterpret_cast<uint32_t*>(base + layout.ranked)};
}

void launch_moe_permute(const MoePermuteArgs& args, cudaStream_t stream) {
  if (args.num_experts < 1 || args.num_experts > kMaxExperts) {
    throw Error("moe_permute takes 1 to 512 experts, not " + std::to_string(args.num_experts));
  }
  const int32_t pairs = args.num_tokens * args.k;
  const auto launch = [&](auto* kernel, int32_t num_chunks, int32_t run, int32_t counts) {
    const size_t shared_bytes =
        sizeof(int32_t) * static_cast<size_t>(counts) * static_cast<size_t>(args.num_experts);
    if (shared_bytes > 40 * 1024) {
      CUDA_CHECK(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                      static_cast<int>(shared_bytes)));
    }
    const PermuteParams params{.args = args, .num_chunks = num_chunks, .run = run};
    launch_dependent(kernel, static_cast<unsigned>(num_chunks), kThreads, shared_bytes, stream, params);
  };
  if (pairs <= kBlockPairs) return launch(permute_kernel<1>, 1, ceil_div(pairs, kWarps), kWarps);
  if (pairs <= kClusterPairs) {
    return launch(permute_kernel<kClusterBlocks>, kClusterBlocks, ceil_div(pairs, kClusterBlocks * kWarps),
                  kWarps + kClusterBlocks);
  }
  const int32_t rounds = pairs <= kManyPairs ? 1 : kMaxRounds, chunks = ceil_div(pairs, rounds * kThreads);
  launch(rank_kernel, chunks, rounds * kWarpSize, kWarps);
  launch(scatter_kernel, chunks, rounds * kWarpSize, 0);
}

}  // namespace moerun
