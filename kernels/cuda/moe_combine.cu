#include <algorithm>

#include "kernels/cuda/hopper.cuh"
#include "kernels/cuda/limits.h"
#include "kernels/cuda/moe_combine.h"
#include "kernels/cuda/rms_norm_row.cuh"
#include "moerun/expert_tree.h"

namespace moerun {
namespace {

using namespace cuda;

constexpr int kThreads = 256, kBlocksAnSm = 4;
constexpr int kMaxK = limits::kMaxCombineK;
constexpr int kSpanEnd = 64;                                            // above every meeting level
static_assert(kMaxCombineNormHidden <= kMaxNormThreads * kNormVector);  // a thread holds one vector of a row

/// A token's local pairs in ascending order of expert id, and how their subtree sums are put together. A
/// subtree's sum stays with its first pair: pair f takes in pair g where g begins the right half of a subtree
/// that f begins.
template <int kPairs>
struct alignas(16) Order {
  static constexpr int kMerges = kPairs * (kPairs - 1) / 2, kWords = ceil_div(kMerges, 32);
  int32_t num_local;
  int32_t slot[kPairs];     ///< position in the top-k list
  uint32_t merges[kWords];  ///< bit merge_bit(f, g): f takes in g
  uint32_t begins;          ///< bit i: pair i begins a sum that stays apart

  __device__ static constexpr int merge_bit(int f, int g) { return f * (2 * kPairs - f - 1) / 2 + g - f - 1; }
  __device__ bool merge(int f, int g) const {
    return merges[merge_bit(f, g) / 32] >> merge_bit(f, g) % 32 & 1;
  }
};

// ---------------------------------------------------------------- kernels

/// By one warp, lane i for slot i.
template <int kPairs>
__device__ void order_pairs(const MoeCombineArgs& args, int32_t token, Order<kPairs>& order) {
  constexpr int32_t kForeign = 0x7fffffff;  // sorts last
  const int lane = threadIdx.x % kWarpSize;
  const int32_t named = lane < args.k ? __ldcg(args.topk_ids + int64_t{token} * args.k + lane) : -1;
  const bool local = named >= 0 && __ldcg(args.local_slot + named) >= 0;
  const int32_t id = tree_position(named), key = local ? id : kForeign;
  int32_t rank = 0, before = -1;  // the next lower local id
  int pure_level = kSpanEnd - 1;  // of the largest subtree around `id` without a foreign expert of this token
#pragma unroll
  for (int i = 0; i < kPairs; ++i) {
    const int32_t other = __shfl_sync(kFullMask, key, i);
    if (other < key) ++rank, before = max(before, other);
  }
  if (args.partial_offsets) {
#pragma unroll
    for (int i = 0; i < kPairs; ++i) {
      const int32_t other = __shfl_sync(kFullMask, id, i);
      const bool foreign = __shfl_sync(kFullMask, key, i) == kForeign && other >= 0;
      if (foreign) pure_level = min(pure_level, meeting_level(id, other) - 1);
    }
  }
  // The level at which this pair meets the one before, or kSpanEnd where it begins a sum.
  int32_t level = before >= 0 ? meeting_level(before, id) : kSpanEnd;
  if (level > pure_level) level = kSpanEnd;
  const int32_t place = local ? level << 8 | rank : 0;
  int32_t first = 0;  // of the left half that this pair's sum is added to: the last one before that is higher
#pragma unroll
  for (int i = 0; i < kPairs; ++i) {
    const int32_t other = __shfl_sync(kFullMask, place, i);
    const int32_t other_rank = other & 0xff;
    if (other >> 8 > level && other_rank < rank) first = max(first, other_rank);
  }
  const bool merges = local && level < kSpanEnd;
  const int bit = merges ? Order<kPairs>::merge_bit(first, rank) : 0;
#pragma unroll
  for (int w = 0; w < Order<kPairs>::kWords; ++w)
    order.merges[w] = __reduce_or_sync(kFullMask, merges && bit / 32 == w ? 1u << bit % 32 : 0);
  order.begins = __reduce_or_sync(kFullMask, local && !merges ? 1u << rank : 0);
  order.num_local = __popc(__ballot_sync(kFullMask, local));
  if (local) order.slot[rank] = lane;
  __syncwarp();
}

/// Eight elements of each of the token's local rows, in the order of the pairs: all loads are in flight
/// before the first sum.
template <int kPairs>
__device__ void load_rows(const uint4* y, int32_t chunks, int32_t chunk, const Order<kPairs>& order,
                          uint4 (&node)[kPairs]) {
  const int32_t num_local = order.num_local;
#pragma unroll
  for (int i = 0; i < kPairs; ++i) {
    if (i < num_local) node[i] = __ldcs(y + order.slot[i] * chunks + chunk);
  }
}

/// Leaves each sum with its first pair. By falling f and rising g, both halves are done when they are added.
template <class T, int kPairs>
__device__ void add_rows(const Order<kPairs>& order, uint4 (&node)[kPairs]) {
#pragma unroll
  for (int f = kPairs - 2; f >= 0; --f) {
#pragma unroll
    for (int g = f + 1; g < kPairs; ++g) {
      if (order.merge(f, g)) node[f] = add_rounded<T>(node[f], node[g]);
    }
  }
}

/// A block a token, eight elements a thread. Each warp orders the pairs for itself, so that none waits for
/// another.
template <class T, int kPairs>
__global__ void __launch_bounds__(kThreads, kPairs <= 8 ? kBlocksAnSm : 1)
    combine_kernel(const __grid_constant__ MoeCombineArgs args) {
  __shared__ Order<kPairs> of_warp[kThreads / kWarpSize];
  const int32_t token = blockIdx.x;
  Order<kPairs>& order = of_warp[threadIdx.x / kWarpSize];
  order_pairs(args, token, order);  // reads what it may before the wait
  dependency_wait();
  dependents_launch();
  const int32_t chunks = args.hidden / 8;
  const uint4* const y = static_cast<const uint4*>(args.y) + int64_t{token} * args.k * chunks;
  const int64_t first_row = args.partial_offsets ? args.partial_offsets[token] : token;

  for (int32_t chunk = threadIdx.x; chunk < chunks; chunk += blockDim.x) {
    uint4 node[kPairs];
    load_rows(y, chunks, chunk, order, node);
    add_rows<T>(order, node);
    uint4* out = static_cast<uint4*>(args.out) + first_row * chunks + chunk;
    if (order.num_local == 0 && !args.partial_offsets) *out = make_uint4(0, 0, 0, 0);
#pragma unroll
    for (int i = 0; i < kPairs; ++i) {
      if (order.begins >> i & 1) {
        *out = node[i];
        out += chunks;
      }
    }
  }
}

/// The same for one sum a token, which stays in registers on its way to the normed row.
template <class T>
__global__ void __launch_bounds__(kMaxNormThreads)
    combine_norm_kernel(const __grid_constant__ MoeCombineNormArgs args) {
  __shared__ Order<kMaxCombineNormK> of_warp[kMaxNormThreads / kWarpSize];
  const int32_t token = blockIdx.x, chunk = threadIdx.x, chunks = args.sums.hidden / 8;
  const bool mine = chunk < chunks;
  const int64_t row = int64_t{token} * chunks;
  uint4* const residual = static_cast<uint4*>(args.residual) + row + chunk;
  uint4 old, sum[1], weight[1];
  float squares = 0;
  if (mine) {  // older than the experts' rows: read before the wait
    old = __ldcg(residual);
    weight[0] = static_cast<const uint4*>(args.weight)[chunk];
  }
  Order<kMaxCombineNormK>& order = of_warp[threadIdx.x / kWarpSize];
  order_pairs(args.sums, token, order);
  dependency_wait();
  dependents_launch();
  if (mine) {
    uint4 node[kMaxCombineNormK];
    load_rows(static_cast<const uint4*>(args.sums.y) + row * args.sums.k, chunks, chunk, order, node);
    add_rows<T>(order, node);
    if (order.num_local == 0) node[0] = make_uint4(0, 0, 0, 0);
    *residual = sum[0] = add_rounded<T>(node[0], old);
    squares = add_squares<T>(sum[0], 0);
  }
  write_normed<T>(sum, weight, squares, args.sums.hidden, args.eps, static_cast<uint4*>(args.sums.out) + row);
}

// ---------------------------------------------------------------- launchers

}  // namespace

void launch_moe_combine(const MoeCombineArgs& args, cudaStream_t stream) {
  if (args.k < 1 || args.k > kMaxK || args.hidden % 8 != 0) {
    throw Error("moe_combine takes 1 to 16 experts a token and a hidden size that is a multiple of 8, not " +
                std::to_string(args.k) + " and " + std::to_string(args.hidden));
  }
  if (args.num_tokens == 0) return;
  const int threads = std::min(round_up(args.hidden / 8, kWarpSize), kThreads);
  const auto grid = static_cast<unsigned>(args.num_tokens);
  with_element(args.dtype, [&]<class T>(T) {
    if (args.k <= 8) {
      launch_dependent(combine_kernel<T, 8>, grid, threads, 0, stream, args);
    } else {
      launch_dependent(combine_kernel<T, kMaxK>, grid, threads, 0, stream, args);
    }
  });
}

void launch_moe_combine_add_rms_norm(const MoeCombineNormArgs& args, cudaStream_t stream) {
  const MoeCombineArgs& sums = args.sums;
  if (sums.k < 1 || sums.k > kMaxCombineNormK || sums.hidden < 8 || sums.hidden > kMaxCombineNormHidden ||
      sums.hidden % 8 != 0 || sums.partial_offsets)
    throw Error("moe_combine_add_rms_norm takes one sum a token, of 1 to " +
                std::to_string(kMaxCombineNormK) + " experts, and a hidden size of up to " +
                std::to_string(kMaxCombineNormHidden) + ", a multiple of 8, not " + std::to_string(sums.k) +
                " and " + std::to_string(sums.hidden) +
                (sums.partial_offsets ? ", nor several sums a token" : ""));
  if (sums.num_tokens == 0) return;
  with_element(sums.dtype, [&]<class T>(T) {
    launch_dependent(combine_norm_kernel<T>, static_cast<unsigned>(sums.num_tokens),
                     norm_threads(sums.hidden), 0, stream, args);
  });
}

}  // namespace moerun
