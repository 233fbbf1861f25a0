// The router with a gate in float32: no tensor core takes it, so the products are plain FMAs.
#include "kernels/cuda/hopper.cuh"
#include "kernels/cuda/router.h"
#include "kernels/cuda/router_choice.cuh"

namespace moerun {
namespace {

using namespace cuda;

constexpr int kWarps = 8, kThreads = kWarps * kWarpSize;
/// A cluster takes kTokens tokens; each of its kBlocks blocks a share of the experts and, in the end, the
/// choice of one token. A warp has kExperts experts at a time.
constexpr int kBlocks = 8, kTokens = kBlocks, kExperts = 4;
constexpr int kEach = 4;  // consecutive columns a lane

// ---------------------------------------------------------------- kernels

/// sum[token][expert] of this lane's columns, ascending.
template <class T>
__device__ void partial_sums(const MoeRouterArgs& args, int32_t token0, int32_t expert0, int32_t expert_end,
                             float (&sum)[kTokens][kExperts]) {
  const auto* const x = static_cast<const T*>(args.x);
  const auto* const gate = static_cast<const float*>(args.gate);
  const int lane = threadIdx.x % kWarpSize;
  for (int32_t col = lane * kEach; col < args.hidden; col += kWarpSize * kEach) {
    float4 w[kExperts];
#pragma unroll
    for (int e = 0; e < kExperts; ++e) {
      const int32_t expert =
          min(expert0 + e, expert_end - 1);  // the last one's sums again, which nobody takes
      w[e] = *reinterpret_cast<const float4*>(gate + static_cast<int64_t>(expert) * args.hidden + col);
    }
#pragma unroll
    for (int t = 0; t < kTokens; ++t) {
      const int32_t token = min(token0 + t, args.num_tokens - 1);
      const uint2 bits = *reinterpret_cast<const uint2*>(x + static_cast<int64_t>(token) * args.hidden + col);
      const float2 low = unpack_floats<T>(bits.x), high = unpack_floats<T>(bits.y);
#pragma unroll
      for (int e = 0; e < kExperts; ++e)
        sum[t][e] =
            fmaf(high.y, w[e].w, fmaf(high.x, w[e].z, fmaf(low.y, w[e].y, fmaf(low.x, w[e].x, sum[t][e]))));
    }
  }
}

template <class T>
__global__ void __launch_bounds__(kThreads) __cluster_dims__(kBlocks)
    router_float32_kernel(const __grid_constant__ MoeRouterArgs args) {
  extern __shared__ float logits[];  // [num_experts] of the token whose choice is this block's
  const int lane = threadIdx.x % kWarpSize, warp = threadIdx.x / kWarpSize;
  const int32_t token0 = static_cast<int32_t>(blockIdx.x) / kBlocks * kTokens;
  const auto rank = static_cast<int32_t>(cluster_rank());
  const int32_t share = ceil_div(args.num_experts, kBlocks);
  const int32_t begin = min(rank * share, args.num_experts), end = min(begin + share, args.num_experts);
  cluster_arrive();  // all blocks must run before one writes into another
  dependency_wait();
  dependents_launch();
  cluster_wait();
  for (int32_t expert0 = begin + warp * kExperts; expert0 < end; expert0 += kWarps * kExperts) {
    float sum[kTokens][kExperts] = {};
    partial_sums<T>(args, token0, expert0, end, sum);
#pragma unroll
    for (int t = 0; t < kTokens; ++t) {
#pragma unroll
      for (int e = 0; e < kExperts; ++e) {
        const float logit = warp_sum(sum[t][e]);
        if (lane == 0 && expert0 + e < end)
          store_in_cluster(logits + expert0 + e, static_cast<uint32_t>(t), logit);
      }
    }
  }
  cluster_arrive(), cluster_wait();
  if (warp == 0 && token0 + rank < args.num_tokens)
    choose<kMaxExperts / kWarpSize, false>(args, token0 + rank, logits);
}

}  // namespace

// ---------------------------------------------------------------- launchers

void launch_moe_router_float32(const MoeRouterArgs& args, cudaStream_t stream) {
  with_element(args.dtype, [&]<class T>(T) {
    launch_dependent(router_float32_kernel<T>,
                     static_cast<unsigned>(ceil_div(args.num_tokens, kTokens) * kBlocks), kThreads,
                     sizeof(float) * static_cast<size_t>(args.num_experts), stream, args);
  });
}

}  // namespace moerun
