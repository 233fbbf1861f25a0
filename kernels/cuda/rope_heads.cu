// launch_rope_cache for what rope_cache.cu does not take: heads that are rotated in part, or in pairs of
// neighbours, or normed over all heads together, or by weights in float32, or that have gates.
#include "kernels/cuda/fp8_cache.cuh"
#include "kernels/cuda/hopper.cuh"
#include "kernels/cuda/rope_cache.h"

namespace moerun {
namespace {

using namespace cuda;

constexpr int kThreads = 128, kWarps = kThreads / kWarpSize;

struct RopeParams {
  RopeArgs args;
  const int32_t *positions, *slot_mapping;
};

// ---------------------------------------------------------------- kernels

template <class T, int kEach>
__device__ void load(const T* from, float (&v)[kEach]) {
#pragma unroll
  for (int e = 0; e < kEach; e += 2) {
    const float2 pair = unpack_floats<T>(*reinterpret_cast<const uint32_t*>(from + e));
    v[e] = pair.x, v[e + 1] = pair.y;
  }
}

template <class T, int kEach>
__device__ void store(const float (&v)[kEach], T* to) {
#pragma unroll
  for (int e = 0; e < kEach; e += 2) *reinterpret_cast<uint32_t*>(to + e) = pack_floats<T>(v[e], v[e + 1]);
}

template <class T, int kEach>
__device__ void round_all(float (&v)[kEach]) {
#pragma unroll
  for (int e = 0; e < kEach; ++e) v[e] = Element<T>::to_float(Element<T>::from_float(v[e]));
}

/// x·scale, rounded, times weight, rounded. Without scales a head has its own: a lane sums the squares of its
/// consecutive elements, ascending, then a butterfly over lanes.
template <class T, int kEach>
__device__ void normalise(const RopeArgs& args, int64_t token, bool query, int head, float (&v)[kEach]) {
  constexpr int kDim = kEach * kWarpSize;
  const int lane = threadIdx.x % kWarpSize;
  float scale;
  int64_t at = lane * kEach;
  if (args.scales.data) {
    scale = static_cast<const float*>(args.scales.data)[token * 2 + (query ? 0 : 1)];
    at += static_cast<int64_t>(head) * kDim;
  } else {
    float sum = 0;
#pragma unroll
    for (int e = 0; e < kEach; ++e) sum = fmaf(v[e], v[e], sum);
    for (int d = kWarpSize / 2; d > 0; d /= 2) sum += __shfl_xor_sync(kFullMask, sum, d);
    scale = rsqrtf(sum / kDim + args.eps);
  }
  const Tensor& weights = query ? args.q_norm : args.k_norm;
#pragma unroll
  for (int e = 0; e < kEach; ++e) v[e] *= scale;
  if (weights.dtype == DType::float32) {  // rounded once
#pragma unroll
    for (int e = 0; e < kEach; ++e) v[e] *= static_cast<const float*>(weights.data)[at + e];
    return round_all<T, kEach>(v);
  }
  float weight[kEach];
  load<T, kEach>(static_cast<const T*>(weights.data) + at, weight);
  round_all<T, kEach>(v);
#pragma unroll
  for (int e = 0; e < kEach; ++e) v[e] *= weight[e];
  round_all<T, kEach>(v);
}

/// The first 2·half elements of `head`, which is in shared memory; `v`: this lane's, in and out.
template <int kEach>
__device__ void rotate(const RopeArgs& args, int64_t position, const float* head, float (&v)[kEach]) {
  const int lane = threadIdx.x % kWarpSize;
  const auto half = static_cast<int>(args.cos.cols);
  const float* const cos = static_cast<const float*>(args.cos.data) + position * half;
  const float* const sin = static_cast<const float*>(args.sin.data) + position * half;
#pragma unroll
  for (int e = 0; e < kEach; ++e) {
    const int at = lane * kEach + e;
    if (at >= 2 * half) continue;
    const bool first = args.interleaved ? at % 2 == 0 : at < half;
    const int i = args.interleaved ? at / 2 : first ? at : at - half;
    const int apart = args.interleaved ? 1 : half;
    v[e] = first ? fmaf(head[at], cos[i], -(head[at + apart] * sin[i]))
                 : fmaf(head[at], cos[i], head[at - apart] * sin[i]);
  }
}

/// A block a token and kWarps of its heads, a warp each; a lane has kDim/32 consecutive elements.
template <class T, class C, int kDim>
__global__ void __launch_bounds__(kThreads) rope_heads_kernel(const __grid_constant__ RopeParams params) {
  constexpr int kEach = kDim / kWarpSize;
  __shared__ float shared[kWarps][kDim];
  const RopeArgs& args = params.args;
  const int lane = threadIdx.x % kWarpSize, warp = threadIdx.x / kWarpSize;
  const int heads = args.num_heads, kv_heads = args.kv.num_kv_heads, all_heads = heads + 2 * kv_heads;
  const int64_t token = blockIdx.x;
  const int head = static_cast<int>(blockIdx.y) * kWarps + warp;
  dependency_wait();
  dependents_launch();
  if (head >= all_heads) return;
  const bool query = head < heads, value = head >= heads + kv_heads;
  const int of_its_kind = query ? head : value ? head - heads - kv_heads : head - heads;
  float v[kEach];
  // Behind each query head may be its gate.
  const int place = !args.gated ? head : query ? 2 * head : heads + head;
  load<T, kEach>(static_cast<const T*>(args.qkv.data) +
                     (token * (all_heads + (args.gated ? heads : 0)) + place) * kDim + lane * kEach,
                 v);
  if (!value) {
    if (args.q_norm.data) normalise<T, kEach>(args, token, query, of_its_kind, v);
#pragma unroll
    for (int e = 0; e < kEach; ++e) shared[warp][lane * kEach + e] = v[e];
    __syncwarp();
    rotate<kEach>(args, params.positions[token], shared[warp], v);
  }
  void* to = args.q.data;
  int64_t row = token * heads + head;
  if (!query) {
    const int32_t slot = params.slot_mapping[token];
    to = value ? args.kv.v.data : args.kv.k.data;
    row = cache_row(args.kv, slot / args.kv.block_size, slot % args.kv.block_size, of_its_kind);
  }
  if constexpr (std::is_same_v<C, E4m3>) {
    if (!query) {
      const bool nan = __any_sync(kFullMask, has_nan(v));
      const float scale = value ? args.kv.v_scale : args.kv.k_scale;
      return store_rounded(v, scale, nan, static_cast<E4m3*>(to) + row * kDim + lane * kEach);
    }
  }
  store<T, kEach>(v, static_cast<T*>(to) + row * kDim + lane * kEach);
}

}  // namespace

// ---------------------------------------------------------------- launchers

void launch_rope_heads(DType dtype, const DevicePlan& plan, const RopeArgs& args, cudaStream_t stream) {
  const RopeParams params{args, plan.positions.data, plan.slot_mapping.data};
  with_cache(dtype, args.kv, [&]<class T, class C, int kDim>() {
    const int all_heads = args.num_heads + 2 * args.kv.num_kv_heads;
    const dim3 grid(static_cast<unsigned>(plan.num_tokens),
                    static_cast<unsigned>(ceil_div(all_heads, kWarps)));
    launch_dependent(rope_heads_kernel<T, C, kDim>, grid, kThreads, 0, stream, params);
  });
}

}  // namespace moerun
