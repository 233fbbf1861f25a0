#include <algorithm>

#include "kernels/cuda/hopper.cuh"
#include "kernels/cuda/moe_combine.h"
#include "moerun/expert_tree.h"

namespace moerun {
namespace {

using namespace cuda;

constexpr int kMaxThreads = 256;
constexpr int kMaxK = 16,
              kMaxDepth = 9;  // left siblings wait at falling levels, and 512 experts have nine levels
constexpr int kSpanEnd = 64;  // above every meeting level

/// A token's local pairs in ascending order of expert id, and how their subtree sums are put together.
struct Order {
  int32_t num_local;
  int32_t slot[kMaxK];    ///< position in the top-k list
  int32_t level[kMaxK];   ///< level at which pair i meets pair i + 1, or kSpanEnd where their partial sums
                          ///< stay apart
  int32_t merges[kMaxK];  ///< waiting left siblings that pair i completes
};

// ---------------------------------------------------------------- kernels

/// One warp, lane i for slot i.
__device__ void order_pairs(const MoeCombineArgs& args, int32_t token, Order& order) {
  const int lane = threadIdx.x;
  const bool used = lane < args.k;
  const int32_t named = used ? args.topk_ids[token * args.k + lane] : -1;
  const bool local = named >= 0 && args.local_slot[named] >= 0;
  const int32_t id = tree_position(named);
  int rank = 0;
  int pure_level =
      kSpanEnd - 1;  // of the largest subtree around `id` that holds no foreign expert of this token
  for (int i = 0; i < args.k; ++i) {
    const int32_t other = __shfl_sync(kFullMask, id, i);
    const bool other_local = __shfl_sync(kFullMask, local, i);
    if (other_local && other < id) ++rank;
    if (other >= 0 && !other_local && args.partial_offsets)
      pure_level = min(pure_level, meeting_level(id, other) - 1);
  }
  int level = kSpanEnd;
  for (int i = 0; i < args.k; ++i) {
    const int32_t other = __shfl_sync(kFullMask, id, i);
    const bool other_local = __shfl_sync(kFullMask, local, i);
    const int other_rank = __shfl_sync(kFullMask, rank, i);
    if (other_local && other_rank == rank + 1) level = meeting_level(id, other);
  }
  if (level > pure_level) level = kSpanEnd;
  if (local) {
    order.slot[rank] = lane;
    order.level[rank] = level;
  }
  __syncwarp();
  if (local) {  // boundary j waits until the first later boundary that is higher
    int merges = 0, highest = 0;
    for (int j = rank - 1; j >= 0 && highest < level; --j) {
      const int waiting = order.level[j];
      if (waiting > highest && waiting < level) ++merges;
      highest = max(highest, waiting);
    }
    order.merges[rank] = merges;
  }
  const unsigned locals = __ballot_sync(kFullMask, local);
  if (lane == 0) order.num_local = __popc(locals);
}

template <class T>
__device__ uint4 add_rounded(uint4 a, uint4 b) {
  const auto add = [](uint32_t x, uint32_t y) {
    const float2 u = unpack_floats<T>(x), v = unpack_floats<T>(y);
    return pack_floats<T>(u.x + v.x, u.y + v.y);
  };
  return make_uint4(add(a.x, b.x), add(a.y, b.y), add(a.z, b.z), add(a.w, b.w));
}

/// A block a token, eight elements a thread. Left siblings wait for their right ones on a stack in shared
/// memory, a column a thread.
template <class T, int kPairs>
__global__ void __launch_bounds__(kMaxThreads) combine_kernel(const __grid_constant__ MoeCombineArgs args) {
  constexpr int kDepth = kPairs - 1 < kMaxDepth ? kPairs - 1 : kMaxDepth;
  __shared__ Order order;
  __shared__ uint4 stack[kDepth][kMaxThreads];
  dependency_wait();
  dependents_launch();
  const int32_t token = blockIdx.x;
  if (args.device_num_tokens && token >= *args.device_num_tokens) return;
  if (threadIdx.x < kWarpSize) order_pairs(args, token, order);
  __syncthreads();
  const int32_t num_local = order.num_local;
  const int32_t chunks = args.hidden / 8;
  const uint4* const y = static_cast<const uint4*>(args.y) + static_cast<int64_t>(token) * args.k * chunks;
  const int64_t first_row = args.partial_offsets ? args.partial_offsets[token] : token;

  for (int32_t chunk = threadIdx.x; chunk < chunks; chunk += blockDim.x) {
    uint4 leaf[kPairs];  // all loads in flight before the first sum
#pragma unroll
    for (int i = 0; i < kPairs; ++i) {
      if (i < num_local) leaf[i] = __ldcs(y + static_cast<int64_t>(order.slot[i]) * chunks + chunk);
    }
    uint4* out = static_cast<uint4*>(args.out) + first_row * chunks + chunk;
    if (num_local == 0 && !args.partial_offsets) *out = make_uint4(0, 0, 0, 0);
    int depth = 0;
#pragma unroll
    for (int i = 0; i < kPairs; ++i) {
      if (i < num_local) {
        uint4 node = leaf[i];
        for (int merges = order.merges[i]; merges > 0; --merges) {
          node = add_rounded<T>(stack[--depth][threadIdx.x], node);
        }
        if (order.level[i] == kSpanEnd) {
          *out = node;
          out += chunks;
        } else {
          stack[depth++][threadIdx.x] = node;
        }
      }
    }
  }
}

// ---------------------------------------------------------------- launchers

}  // namespace

void launch_moe_combine(const MoeCombineArgs& args, cudaStream_t stream) {
  if (args.k < 1 || args.k > kMaxK || args.hidden % 8 != 0) {
    throw Error("moe_combine takes 1 to 16 experts a token and a hidden size that is a multiple of 8, not " +
                std::to_string(args.k) + " and " + std::to_string(args.hidden));
  }
  if (args.num_tokens == 0) return;
  const int threads = std::min(round_up(args.hidden / 8, kWarpSize), kMaxThreads);
  const auto grid = static_cast<unsigned>(args.num_tokens);
  with_element(args.dtype, [&]<class T>(T) {
    if (args.k <= 8) {
      launch_dependent(combine_kernel<T, 8>, grid, threads, 0, stream, args);
    } else {
      launch_dependent(combine_kernel<T, kMaxK>, grid, threads, 0, stream, args);
    }
  });
}

}  // namespace moerun
