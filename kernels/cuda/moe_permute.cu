#include <algorithm>
#include <utility>

#include "kernels/cuda/hopper.cuh"
#include "kernels/cuda/moe_permute.h"

namespace moerun {
namespace {

using namespace cuda;

constexpr int kThreads = 1024, kWarps = kThreads / kWarpSize;
constexpr int kChunkPairs = 4096;        // of a block, when there are several
constexpr int kSingleChunkPairs = 8192;  // up to here one block does all
constexpr int kMaxExperts = 512;

struct PermuteParams {
  MoePermuteArgs args;
  int32_t num_chunks = 1, chunk_pairs = 0;
};

// ---------------------------------------------------------------- kernels

/// Each warp owns a run of consecutive pairs, in rounds of 32: a stable sort needs only each lane's rank
/// among the equal ids of its round.
struct WarpRun {
  int32_t begin = 0, end = 0;

  __device__ WarpRun(const PermuteParams& p, int32_t total_pairs) {
    const int32_t per_warp = p.chunk_pairs / kWarps;
    begin = min(static_cast<int32_t>(blockIdx.x) * p.chunk_pairs +
                    static_cast<int32_t>(threadIdx.x) / kWarpSize * per_warp,
                total_pairs);
    end = min(begin + per_warp, total_pairs);
  }
};

__device__ int32_t total_pairs(const MoePermuteArgs& args) {
  const int32_t n = args.device_num_tokens ? min(*args.device_num_tokens, args.num_tokens) : args.num_tokens;
  return n * args.k;
}

/// The pair's expert where it is local, else −1 − lane (which equals no other lane's).
__device__ int32_t local_expert(const MoePermuteArgs& args, int32_t pair, int32_t end, int lane) {
  if (pair >= end) return -1 - lane;
  const int32_t expert = args.topk_ids[pair];
  return expert >= 0 && args.local_slot[expert] >= 0 ? expert : -1 - lane;
}

/// counts[warp][expert] of the block's chunk.
__device__ void count_chunk(const PermuteParams& p, int32_t* counts) {
  const int32_t num_experts = p.args.num_experts;
  for (int i = threadIdx.x; i < kWarps * num_experts; i += kThreads) counts[i] = 0;
  __syncthreads();
  const WarpRun run(p, total_pairs(p.args));
  const int lane = threadIdx.x % kWarpSize;
  int32_t* const mine = counts + threadIdx.x / kWarpSize * num_experts;
  for (int32_t pair = run.begin; pair < run.end; pair += kWarpSize) {
    const int32_t expert = local_expert(p.args, pair + lane, run.end, lane);
    const unsigned same = __match_any_sync(kFullMask, expert);
    if (expert >= 0 && lane == __ffs(same) - 1) mine[expert] += __popc(same);
    __syncwarp();
  }
  __syncthreads();
}

__global__ void __launch_bounds__(kThreads, 1) count_kernel(const __grid_constant__ PermuteParams p) {
  extern __shared__ int32_t counts[];  // [warps, num_experts]
  dependency_wait();
  dependents_launch();
  count_chunk(p, counts);
  const int32_t num_experts = p.args.num_experts;
  for (int expert = threadIdx.x; expert < num_experts; expert += kThreads) {
    int32_t sum = 0;
    for (int w = 0; w < kWarps; ++w) sum += counts[w * num_experts + expert];
    p.args.plan.chunk_counts[blockIdx.x * num_experts + expert] = sum;
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

/// Rows of each tile of an expert with `count` rows: nearly equal tiles, in whole steps of 32.
__device__ int32_t rows_a_tile(int32_t count, int32_t tile_rows) {
  return count == 0 ? tile_rows : round_up(ceil_div(count, ceil_div(count, tile_rows)), 32);
}

__global__ void __launch_bounds__(kThreads, 1) scatter_kernel(const __grid_constant__ PermuteParams p) {
  extern __shared__ int32_t counts[];  // [warps, num_experts], then each warp's next row of each expert
  __shared__ int2 warp_sums[kWarps], totals;
  const MoePermuteArgs& args = p.args;
  const int32_t num_experts = args.num_experts;
  const int expert = threadIdx.x;
  dependency_wait();
  dependents_launch();
  count_chunk(p, counts);

  // A thread an expert: its rows in all chunks, and those before this chunk.
  int32_t count = 0, before = 0;
  if (expert < num_experts) {
    if (p.num_chunks == 1) {
#pragma unroll 8
      for (int w = 0; w < kWarps; ++w) count += counts[w * num_experts + expert];
    } else {
#pragma unroll 8
      for (int c = 0; c < p.num_chunks; ++c) {
        const int32_t of_chunk = args.plan.chunk_counts[c * num_experts + expert];
        count += of_chunk;
        if (c < static_cast<int>(blockIdx.x)) before += of_chunk;
      }
    }
  }
  const int32_t rows_each = rows_a_tile(count, args.tile_rows);
  const int32_t tiles = ceil_div(count, rows_each);
  const int2 start = exclusive_scan(make_int2(count, tiles), warp_sums, &totals);

  if (expert < num_experts) {
    int32_t next = start.x + before;
#pragma unroll 8
    for (int w = 0; w < kWarps; ++w) {
      const int32_t of_warp = counts[w * num_experts + expert];
      counts[w * num_experts + expert] = next;
      next += of_warp;
    }
    if (blockIdx.x == 0) {
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
  }
  if (blockIdx.x == 0 && threadIdx.x == 0) {
    *args.plan.counters = {.num_tiles = totals.y, .num_rows = totals.x, .next_ticket = 0, .unused = 0};
  }
  __syncthreads();

  const WarpRun run(p, total_pairs(args));
  const int lane = threadIdx.x % kWarpSize;
  int32_t* const next_row = counts + threadIdx.x / kWarpSize * num_experts;
  for (int32_t pair = run.begin; pair < run.end; pair += kWarpSize) {
    const int32_t id = local_expert(args, pair + lane, run.end, lane);
    const unsigned same = __match_any_sync(kFullMask, id);
    if (id >= 0) {
      const int rank = __popc(same & ((1u << lane) - 1));
      args.plan.rows[next_row[id] + rank] = {.pair = pair + lane, .weight = args.topk_weights[pair + lane]};
    }
    __syncwarp();
    if (id >= 0 && lane == __ffs(same) - 1) next_row[id] += __popc(same);
    __syncwarp();
  }
}

// ---------------------------------------------------------------- launchers

struct PlanLayout {
  size_t rows, tiles, arrivals, counters, chunks, bytes;
};

PlanLayout plan_layout(int64_t max_tokens, int32_t k, int32_t num_experts) {
  const auto pairs = static_cast<size_t>(max_tokens) * static_cast<size_t>(k),
             experts = static_cast<size_t>(num_experts);
  const size_t max_tiles = pairs / 32 + experts;  // tiles have at least 32 rows but for an expert's last
  const size_t max_chunks = ceil_div<size_t>(pairs, kChunkPairs);
  PlanLayout layout{};
  size_t at = 0;
  const auto take = [&](size_t bytes) { return std::exchange(at, round_up<size_t>(at + bytes, 256)); };
  layout.counters = take(sizeof(MoeCounters));
  layout.rows = take(pairs * sizeof(RoutedRow));
  layout.tiles = take(max_tiles * sizeof(MoeTile));
  layout.arrivals = take(max_tiles * sizeof(int32_t));
  layout.chunks = take(max_chunks * experts * sizeof(int32_t));
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
          .chunk_counts = reinterpret_cast<int32_t*>(base + layout.chunks)};
}

void launch_moe_permute(const MoePermuteArgs& args, cudaStream_t stream) {
  if (args.num_experts < 1 || args.num_experts > kMaxExperts) {
    throw Error("moe_permute takes 1 to 512 experts, not " + std::to_string(args.num_experts));
  }
  const int32_t pairs = args.num_tokens * args.k;
  const bool single = pairs <= kSingleChunkPairs;
  const PermuteParams params{
      .args = args,
      .num_chunks = single ? 1 : ceil_div(pairs, kChunkPairs),
      .chunk_pairs = single ? std::max(round_up(pairs, kThreads), kThreads) : kChunkPairs};
  const size_t shared_bytes = sizeof(int32_t) * kWarps * static_cast<size_t>(args.num_experts);
  const auto grid = static_cast<unsigned>(params.num_chunks);
  if (shared_bytes > 40 * 1024) {
    for (auto* kernel : {count_kernel, scatter_kernel}) {
      CUDA_CHECK(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                      static_cast<int>(shared_bytes)));
    }
  }
  if (!single) launch_dependent(count_kernel, grid, kThreads, shared_bytes, stream, params);
  launch_dependent(scatter_kernel, grid, kThreads, shared_bytes, stream, params);
}

}  // namespace moerun
