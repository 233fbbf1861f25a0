#include "kernels/cuda/rope_cache.h"

#include "kernels/cuda/attention_heads.cuh"
#include "kernels/cuda/hopper.cuh"

namespace moerun {
namespace {

using namespace cuda;

constexpr int kWarps = 4, kThreads = kWarps * kWarpSize;

struct RopeParams {
  RopeArgs args;
  const int32_t *positions, *slot_mapping;
};

// ---------------------------------------------------------------- kernels

template <class T>
__device__ float rounded(float value) {
  return Element<T>::to_float(Element<T>::from_float(value));
}

/// A block a token, a warp a head; a lane holds elements i and i + head_dim/2, which rotate into each other.
template <class T, int kDim>
__global__ void __launch_bounds__(kThreads) rope_cache_kernel(const __grid_constant__ RopeParams params) {
  dependency_wait();
  dependents_launch();
  constexpr int kHalf = kDim / 2, kEach = kHalf / kWarpSize;
  const RopeArgs& args = params.args;
  const int token = blockIdx.x, lane = threadIdx.x % kWarpSize;
  const int heads = args.num_heads, kv_heads = args.kv.num_kv_heads, all_heads = heads + 2 * kv_heads;
  const T* const row = static_cast<const T*>(args.qkv.data) + static_cast<int64_t>(token) * all_heads * kDim;
  const int32_t slot = params.slot_mapping[token];
  const int64_t angle = static_cast<int64_t>(params.positions[token]) * kHalf;
  const float* const cos = static_cast<const float*>(args.cos.data) + angle;
  const float* const sin = static_cast<const float*>(args.sin.data) + angle;
  for (int head = threadIdx.x / kWarpSize; head < all_heads; head += kWarps) {
    const bool query = head < heads, value = head >= heads + kv_heads;
    const T* const in = row + head * kDim;
    T* out = static_cast<T*>(args.q.data) + (static_cast<int64_t>(token) * heads + head) * kDim;
    if (!query)
      out = static_cast<T*>(value ? args.kv.v.data : args.kv.k.data) +
            cache_row(args.kv, slot / args.kv.block_size, slot % args.kv.block_size,
                      (head - heads) % kv_heads) *
                kDim;
    if (value) {
      for (int i = lane; i < kDim; i += kWarpSize) out[i] = in[i];
      continue;
    }
    float low[kEach], high[kEach], sum = 0;
#pragma unroll
    for (int e = 0; e < kEach; ++e) {
      low[e] = Element<T>::to_float(in[lane + e * kWarpSize]);
      high[e] = Element<T>::to_float(in[lane + e * kWarpSize + kHalf]);
      sum += low[e] * low[e] + high[e] * high[e];
    }
    for (int d = kWarpSize / 2; d > 0; d /= 2) sum += __shfl_xor_sync(kFullMask, sum, d);
    const float scale = rsqrtf(sum / kDim + args.eps);
    const T* const weight = static_cast<const T*>(query ? args.q_norm.data : args.k_norm.data);
#pragma unroll
    for (int e = 0; e < kEach; ++e) {
      const int i = lane + e * kWarpSize;
      const float a = rounded<T>(rounded<T>(low[e] * scale) * Element<T>::to_float(weight[i]));
      const float b = rounded<T>(rounded<T>(high[e] * scale) * Element<T>::to_float(weight[i + kHalf]));
      out[i] = Element<T>::from_float(a * cos[i] - b * sin[i]);
      out[i + kHalf] = Element<T>::from_float(b * cos[i] + a * sin[i]);
    }
  }
}

}  // namespace

// ---------------------------------------------------------------- launchers

void launch_rope_cache(DType dtype, const DevicePlan& plan, const RopeArgs& args, cudaStream_t stream) {
  if (plan.num_tokens == 0) return;
  const RopeParams params{args, plan.positions.data, plan.slot_mapping.data};
  with_head(dtype, args.kv.head_dim, [&]<class T, int kDim>() {
    launch_dependent(rope_cache_kernel<T, kDim>, static_cast<unsigned>(plan.num_tokens), kThreads, 0, stream,
                     params);
  });
}

}  // namespace moerun
