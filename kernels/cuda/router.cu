#include "kernels/cuda/hopper.cuh"
#include "kernels/cuda/limits.h"
#include "kernels/cuda/router.h"
#include "kernels/cuda/router_choice.cuh"

namespace moerun {
namespace {

using namespace cuda;

constexpr int kWarps = 8, kThreads = kWarps * kWarpSize;
constexpr int kPad =
    4;  // floats after each row of partial logits: rows of a fragment fall on different banks

/// How the work is cut; the bits are the same for all. A cluster of kBlocks takes 16·kTokenTiles tokens, each
/// of its blocks an equal share of the experts, 8·kExpertTiles at a time. What bounds it is the second-level
/// cache, from which a cluster reads the gate once and its tokens once a block: the more tokens there are,
/// the more of them share a pass over the gate, as long as the blocks fill the chip.
struct Few {
  static constexpr int kTokenTiles = 1, kBlocks = 8, kExpertTiles = 2, kAhead = 4, kBlocksAnSm = 2;
};
struct Some {
  static constexpr int kTokenTiles = 1, kBlocks = 4, kExpertTiles = 4, kAhead = 2, kBlocksAnSm = 2;
};
struct Many {
  static constexpr int kTokenTiles = 2, kBlocks = 2, kExpertTiles = 8, kAhead = 2, kBlocksAnSm = 1;
};
struct VeryMany {
  static constexpr int kTokenTiles = 4, kBlocks = 2, kExpertTiles = 8, kAhead = 1, kBlocksAnSm = 1;
};
constexpr int32_t kFewTokens = 384, kSomeTokens = 768, kManyTokens = 2112;  // the most that each takes

// ---------------------------------------------------------------- kernels

/// 32 columns of a row, 8 for each lane of a quad. The same columns go to the same places of both operands,
/// so their order within the matrix instruction is free: a lane's 16 consecutive bytes serve two steps.
__device__ uint4 load_columns(const void* row, int32_t col, int32_t cols, bool valid) {
  return valid && col < cols ? *reinterpret_cast<const uint4*>(static_cast<const uint16_t*>(row) + col)
                             : make_uint4(0, 0, 0, 0);
}

/// partial[warp][token][expert] over this warp's eighth of the hidden columns, ascending. Loads of kAhead
/// steps are in flight at once.
template <class T, class Cut>
__device__ void partial_logits(const MoeRouterArgs& args, int32_t token0, int32_t expert0, int32_t expert_end,
                               float* partial) {
  constexpr int kTokenTiles = Cut::kTokenTiles, kExpertTiles = Cut::kExpertTiles, kAhead = Cut::kAhead;
  constexpr int kRow = kExpertTiles * 8 + kPad;
  const int lane = threadIdx.x % kWarpSize, warp = threadIdx.x / kWarpSize, row = lane / 4, quad = lane % 4;
  const int32_t part = round_up(ceil_div(args.hidden, kWarps), 32);
  const int32_t begin = min(warp * part, args.hidden), end = min(begin + part, args.hidden);
  const T* const x = static_cast<const T*>(args.x);
  const T* const gate = static_cast<const T*>(args.gate);
  float d[kTokenTiles][kExpertTiles][4] = {};
  for (int32_t col0 = begin; col0 < end; col0 += 32 * kAhead) {
    uint4 a[kAhead][kTokenTiles][2], b[kAhead][kExpertTiles];
#pragma unroll
    for (int s = 0; s < kAhead; ++s) {
      const int32_t col = col0 + s * 32 + quad * 8;
#pragma unroll
      for (int i = 0; i < 2 * kTokenTiles; ++i) {
        const int32_t token = token0 + i * 8 + row;
        a[s][i / 2][i % 2] =
            load_columns(x + static_cast<int64_t>(token) * args.hidden, col, end, token < args.num_tokens);
      }
#pragma unroll
      for (int tile = 0; tile < kExpertTiles; ++tile) {
        const int32_t expert = expert0 + tile * 8 + row;
        b[s][tile] =
            load_columns(gate + static_cast<int64_t>(expert) * args.hidden, col, end, expert < expert_end);
      }
    }
#pragma unroll
    for (int s = 0; s < kAhead; ++s) {
#pragma unroll
      for (int tile = 0; tile < kExpertTiles; ++tile) {
        const uint4 w = b[s][tile];
#pragma unroll
        for (int t = 0; t < kTokenTiles; ++t) {
          const uint4 low = a[s][t][0], high = a[s][t][1];
          mma_16x8x16<T>(d[t][tile], low.x, high.x, low.y, high.y, w.x, w.y);
          mma_16x8x16<T>(d[t][tile], low.z, high.z, low.w, high.w, w.z, w.w);
        }
      }
    }
  }
  float* const mine = partial + warp * (kTokenTiles * 16) * kRow;
#pragma unroll
  for (int t = 0; t < kTokenTiles; ++t) {
#pragma unroll
    for (int tile = 0; tile < kExpertTiles; ++tile) {
      float* const at = mine + (t * 16 + row) * kRow + tile * 8 + quad * 2;
      *reinterpret_cast<float2*>(at) = make_float2(d[t][tile][0], d[t][tile][1]);
      *reinterpret_cast<float2*>(at + 8 * kRow) = make_float2(d[t][tile][2], d[t][tile][3]);
    }
  }
}

/// kPlain: RouterRule's own values but for `normalise`.
template <class T, class Cut, bool kPlain>
__global__ void __launch_bounds__(kThreads, Cut::kBlocksAnSm) __cluster_dims__(Cut::kBlocks)
    router_kernel(const __grid_constant__ MoeRouterArgs args) {
  constexpr int kTokens = Cut::kTokenTiles * 16, kExpertsAPass = Cut::kExpertTiles * 8,
                kRow = kExpertsAPass + kPad;
  constexpr int kOwnTokens = kTokens / Cut::kBlocks;  // that this block of the cluster chooses for
  extern __shared__ float shared[];
  float* const partial = shared;                           // [warps, tokens, kRow]
  float* const logits = shared + kWarps * kTokens * kRow;  // [own tokens, num_experts]
  const int32_t token0 = static_cast<int32_t>(blockIdx.x) / Cut::kBlocks * kTokens;
  const auto rank = static_cast<int32_t>(cluster_rank());
  const int32_t share = round_up(ceil_div(args.num_experts, Cut::kBlocks), 8);
  const int32_t expert_begin = min(rank * share, args.num_experts),
                expert_end = min(expert_begin + share, args.num_experts);
  cluster_arrive();  // all blocks must run before one writes into another
  // The gate depends on no other kernel.
  const int64_t bytes = int64_t{args.num_experts} * args.hidden * 2;
  for (int64_t at = (int64_t{blockIdx.x} * kThreads + threadIdx.x) * 128; at < bytes;
       at += int64_t{gridDim.x} * kThreads * 128)
    prefetch_l2(static_cast<const char*>(args.gate) + at);
  dependency_wait();
  dependents_launch();
  cluster_wait();
  for (int32_t expert0 = expert_begin; expert0 < expert_end; expert0 += kExpertsAPass) {
    partial_logits<T, Cut>(args, token0, expert0, expert_end, partial);
    __syncthreads();
    const int32_t width = min(kExpertsAPass, expert_end - expert0);
    for (int i = threadIdx.x; i < kTokens * width; i += kThreads) {
      const int token = i / width, expert = i % width;
      float part[kWarps];
#pragma unroll
      for (int w = 0; w < kWarps; ++w) part[w] = partial[(w * kTokens + token) * kRow + expert];
      const float logit =
          ((part[0] + part[1]) + (part[2] + part[3])) + ((part[4] + part[5]) + (part[6] + part[7]));
      float* const at = logits + token % kOwnTokens * args.num_experts + expert0 + expert;
      store_in_cluster(at, token / kOwnTokens, logit);
    }
    __syncthreads();
  }
  cluster_arrive(), cluster_wait();
  const int32_t first = token0 + rank * kOwnTokens;
  for (int t = threadIdx.x / kWarpSize; t < kOwnTokens; t += kWarps) {
    if (first + t >= args.num_tokens) break;
    if (args.num_experts <= 4 * kWarpSize) {
      choose<4, kPlain>(args, first + t, logits + t * args.num_experts);
    } else {
      choose<kMaxExperts / kWarpSize, kPlain>(args, first + t, logits + t * args.num_experts);
    }
  }
}

// ---------------------------------------------------------------- launchers

template <class T, class Cut, bool kPlain>
void launch_cut(const MoeRouterArgs& args, cudaStream_t stream) {
  constexpr int kTokens = Cut::kTokenTiles * 16;
  const size_t shared_bytes =
      sizeof(float) * (kWarps * kTokens * (Cut::kExpertTiles * 8 + kPad) +
                       static_cast<size_t>(kTokens / Cut::kBlocks) * static_cast<size_t>(args.num_experts));
  constexpr auto* kernel = router_kernel<T, Cut, kPlain>;
  CUDA_CHECK(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                  static_cast<int>(shared_bytes)));
  launch_dependent(kernel, static_cast<unsigned>(ceil_div(args.num_tokens, kTokens) * Cut::kBlocks), kThreads,
                   shared_bytes, stream, args);
}

template <class T, bool kPlain>
void launch_rule(const MoeRouterArgs& args, cudaStream_t stream) {
  if (args.num_tokens <= kFewTokens) {
    launch_cut<T, Few, kPlain>(args, stream);
  } else if (args.num_tokens <= kSomeTokens) {
    launch_cut<T, Some, kPlain>(args, stream);
  } else if (args.num_tokens <= kManyTokens) {
    launch_cut<T, Many, kPlain>(args, stream);
  } else {
    launch_cut<T, VeryMany, kPlain>(args, stream);
  }
}

}  // namespace

void check_router(const MoeRouterArgs& args) {
  if (args.hidden % 8 != 0 || args.num_experts < 1 || args.num_experts > kMaxExperts || args.k < 1 ||
      args.k > kMaxK || args.k > args.num_experts) {
    throw Error(
        "router: takes a hidden size that is a multiple of 8, at most 512 experts and 1 to 32 of them a "
        "token; got " +
        std::to_string(args.hidden) + ", " + std::to_string(args.num_experts) + ", " +
        std::to_string(args.k));
  }
  const RouterRule& rule = args.rule;
  if (rule.num_groups < 1 || rule.num_groups > limits::kMaxRouterGroups ||
      args.num_experts % rule.num_groups != 0 || rule.groups_taken < 1 ||
      rule.groups_taken > rule.num_groups || args.k > args.num_experts / rule.num_groups * rule.groups_taken)
    throw Error("router: takes at most 32 groups of equal size that hold what is chosen, not " +
                std::to_string(rule.groups_taken) + " of " + std::to_string(rule.num_groups));
}

void launch_moe_router(const MoeRouterArgs& args, cudaStream_t stream) {
  check_router(args);
  if (args.num_tokens == 0) return;
  if (args.float32_gate) return launch_moe_router_float32(args, stream);
  with_element(args.dtype, [&]<class T>(T) {
    if (is_plain(args)) {
      launch_rule<T, true>(args, stream);
    } else {
      launch_rule<T, false>(args, stream);
    }
  });
}

}  // namespace moerun
