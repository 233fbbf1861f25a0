#include "kernels/cuda/hopper.cuh"
#include "kernels/cuda/router.h"

namespace moerun {
namespace {

using namespace cuda;

constexpr int kWarps = 8, kThreads = kWarps * kWarpSize;
constexpr int kExpertsAPass = 128, kExpertTiles = kExpertsAPass / 8;
constexpr int kMaxExperts = 512, kMaxK = 32;
constexpr int kPad =
    4;  // floats after each row of partial logits: rows of a fragment fall on different banks

// ---------------------------------------------------------------- kernels

/// 32 columns of a row, 8 for each lane of a quad. The same columns go to the same places of both operands,
/// so their order within the matrix instruction is free: a lane's 16 consecutive bytes serve two steps.
__device__ uint4 load_columns(const void* row, int32_t col, int32_t cols, bool valid) {
  return valid && col < cols ? *reinterpret_cast<const uint4*>(static_cast<const uint16_t*>(row) + col)
                             : make_uint4(0, 0, 0, 0);
}

/// partial[warp][token][expert] over this warp's eighth of the hidden columns, ascending.
template <class T, int kTokenTiles>
__device__ void partial_logits(const MoeRouterArgs& args, int32_t token0, int32_t expert0, float* partial) {
  const int lane = threadIdx.x % kWarpSize, warp = threadIdx.x / kWarpSize, row = lane / 4, quad = lane % 4;
  const int32_t part = round_up(ceil_div(args.hidden, kWarps), 32);
  const int32_t begin = min(warp * part, args.hidden), end = min(begin + part, args.hidden);
  const T* const x = static_cast<const T*>(args.x);
  const T* const gate = static_cast<const T*>(args.gate);
  float d[kTokenTiles][kExpertTiles][4] = {};
  for (int32_t col0 = begin; col0 < end; col0 += 32) {
    const int32_t col = col0 + quad * 8;
    uint4 a[kTokenTiles][2];
#pragma unroll
    for (int t = 0; t < kTokenTiles; ++t) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int32_t token = token0 + t * 16 + half * 8 + row;
        a[t][half] =
            load_columns(x + static_cast<int64_t>(token) * args.hidden, col, end, token < args.num_tokens);
      }
    }
#pragma unroll
    for (int tile = 0; tile < kExpertTiles; ++tile) {
      const int32_t expert = expert0 + tile * 8 + row;
      const uint4 b = load_columns(gate + static_cast<int64_t>(expert) * args.hidden, col, end,
                                   expert < args.num_experts);
#pragma unroll
      for (int t = 0; t < kTokenTiles; ++t) {
        mma_16x8x16<T>(d[t][tile], a[t][0].x, a[t][1].x, a[t][0].y, a[t][1].y, b.x, b.y);
        mma_16x8x16<T>(d[t][tile], a[t][0].z, a[t][1].z, a[t][0].w, a[t][1].w, b.z, b.w);
      }
    }
  }
  float* const mine = partial + warp * (kTokenTiles * 16) * (kExpertsAPass + kPad);
#pragma unroll
  for (int t = 0; t < kTokenTiles; ++t) {
#pragma unroll
    for (int tile = 0; tile < kExpertTiles; ++tile) {
      float* const at = mine + (t * 16 + row) * (kExpertsAPass + kPad) + tile * 8 + quad * 2;
      *reinterpret_cast<float2*>(at) = make_float2(d[t][tile][0], d[t][tile][1]);
      *reinterpret_cast<float2*>(at + 8 * (kExpertsAPass + kPad)) = make_float2(d[t][tile][2], d[t][tile][3]);
    }
  }
}

/// Softmax and top-k of one token by one warp. `logits` [num_experts] in shared memory is consumed.
__device__ void choose(const MoeRouterArgs& args, int32_t token, float* logits) {
  const int lane = threadIdx.x % kWarpSize;
  float highest = -INFINITY;
  for (int e = lane; e < args.num_experts; e += kWarpSize) highest = fmaxf(highest, logits[e]);
  for (int d = kWarpSize / 2; d > 0; d /= 2) highest = fmaxf(highest, __shfl_xor_sync(kFullMask, highest, d));
  float sum = 0;
  for (int e = lane; e < args.num_experts; e += kWarpSize) sum += expf(logits[e] - highest);
  for (int d = kWarpSize / 2; d > 0; d /= 2) sum += __shfl_xor_sync(kFullMask, sum, d);

  float weight = 0, chosen_sum = 0;  // lane i keeps the i-th choice
  int id = 0;
  for (int i = 0; i < args.k; ++i) {
    float best = -INFINITY;
    int best_id = args.num_experts;
    for (int e = lane; e < args.num_experts; e += kWarpSize) {
      if (logits[e] > best || best_id == args.num_experts) best = logits[e], best_id = e;
    }
    for (int d = kWarpSize / 2; d > 0; d /= 2) {
      const float other = __shfl_xor_sync(kFullMask, best, d);
      const int other_id = __shfl_xor_sync(kFullMask, best_id, d);
      if (other > best || (other == best && other_id < best_id)) best = other, best_id = other_id;
    }
    const float probability = expf(best - highest) / sum;
    chosen_sum += probability;
    if (lane == i) weight = probability, id = best_id;
    if (best_id % kWarpSize == lane) logits[best_id] = -INFINITY;
    __syncwarp();
  }
  if (lane < args.k) {
    args.topk_ids[token * args.k + lane] = id;
    args.topk_weights[token * args.k + lane] = args.norm_topk_prob ? weight / chosen_sum : weight;
  }
}

template <class T, int kTokenTiles>
__global__ void __launch_bounds__(kThreads, 1) router_kernel(const __grid_constant__ MoeRouterArgs args) {
  constexpr int kTokens = kTokenTiles * 16, kRow = kExpertsAPass + kPad;
  extern __shared__ float shared[];
  float* const partial = shared;                           // [warps, tokens, kRow]
  float* const logits = shared + kWarps * kTokens * kRow;  // [tokens, num_experts]
  const int32_t token0 = blockIdx.x * kTokens;
  dependency_wait();
  dependents_launch();
  for (int32_t expert0 = 0; expert0 < args.num_experts; expert0 += kExpertsAPass) {
    partial_logits<T, kTokenTiles>(args, token0, expert0, partial);
    __syncthreads();
    const int32_t width = min(kExpertsAPass, args.num_experts - expert0);
    for (int i = threadIdx.x; i < kTokens * width; i += kThreads) {
      const int token = i / width, expert = i % width;
      float part[kWarps];
#pragma unroll
      for (int w = 0; w < kWarps; ++w) part[w] = partial[(w * kTokens + token) * kRow + expert];
      logits[token * args.num_experts + expert0 + expert] =
          ((part[0] + part[1]) + (part[2] + part[3])) + ((part[4] + part[5]) + (part[6] + part[7]));
    }
    __syncthreads();
  }
  for (int t = threadIdx.x / kWarpSize; t < kTokens; t += kWarps) {
    if (token0 + t < args.num_tokens) choose(args, token0 + t, logits + t * args.num_experts);
  }
}

// ---------------------------------------------------------------- launchers

template <class T, int kTokenTiles>
void launch_tiles(const MoeRouterArgs& args, cudaStream_t stream) {
  constexpr int kTokens = kTokenTiles * 16;
  const size_t shared_bytes =
      sizeof(float) * kTokens * (kWarps * (kExpertsAPass + kPad) + static_cast<size_t>(args.num_experts));
  constexpr auto* kernel = router_kernel<T, kTokenTiles>;
  CUDA_CHECK(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                  static_cast<int>(shared_bytes)));
  launch_dependent(kernel, static_cast<unsigned>(ceil_div(args.num_tokens, kTokens)), kThreads, shared_bytes,
                   stream, args);
}

}  // namespace

void launch_moe_router(const MoeRouterArgs& args, cudaStream_t stream) {
  if (args.hidden % 8 != 0 || args.num_experts < 1 || args.num_experts > kMaxExperts || args.k < 1 ||
      args.k > kMaxK || args.k > args.num_experts) {
    throw Error(
        "router: takes a hidden size that is a multiple of 8, at most 512 experts and 1 to 32 of them a "
        "token; got " +
        std::to_string(args.hidden) + ", " + std::to_string(args.num_experts) + ", " +
        std::to_string(args.k));
  }
  if (args.num_tokens == 0) return;
  // Few tokens: more blocks. Many: each pass over the gate serves more tokens. The bits are the same.
  constexpr int32_t kManyTokens = 2048;
  with_element(args.dtype, [&]<class T>(T) {
    if (args.num_tokens <= kManyTokens) {
      launch_tiles<T, 1>(args, stream);
    } else {
      launch_tiles<T, 2>(args, stream);
    }
  });
}

}  // namespace moerun
