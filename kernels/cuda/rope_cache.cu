#include "kernels/cuda/rope_cache.h"

#include "kernels/cuda/fp8_cache.cuh"
#include "kernels/cuda/hopper.cuh"

namespace moerun {
namespace {

using namespace cuda;

constexpr int kThreads = 128;

constexpr int kEach = 4;  // consecutive elements of a half of a head, a lane

__host__ __device__ constexpr int heads_of_block(int head_dim) { return kThreads / (head_dim / 2 / kEach); }

struct RopeParams {
  RopeArgs args;
  const int32_t *positions, *slot_mapping;
};

// ---------------------------------------------------------------- kernels

template <class T>
__device__ void unpack(uint2 bits, float (&v)[kEach]) {
  const float2 low = unpack_floats<T>(bits.x), high = unpack_floats<T>(bits.y);
  v[0] = low.x, v[1] = low.y, v[2] = high.x, v[3] = high.y;
}
template <class T>
__device__ uint2 pack(const float (&v)[kEach]) {
  return make_uint2(pack_floats<T>(v[0], v[1]), pack_floats<T>(v[2], v[3]));
}

/// The sum over a head of low² + high², the same in each of its lanes. The order is that of 32 columns, each
/// of which sums elements 32 apart, and a butterfly over them: 16, 8, … 1 apart.
template <int kLanes>
__device__ float sum_of_squares(const float (&low)[kEach], const float (&high)[kEach]) {
  float sum[kEach];
#pragma unroll
  for (int e = 0; e < kEach; ++e) {
    // Which square is rounded differs by head size: golden answers hold these bits.
    sum[e] = kLanes == 16 ? fmaf(high[e], high[e], low[e] * low[e]) : fmaf(low[e], low[e], high[e] * high[e]);
#pragma unroll
    for (int d = kLanes / 2; d > 0; d /= 2) sum[e] += __shfl_xor_sync(kFullMask, sum[e], d);
  }
  return (sum[0] + sum[2]) + (sum[1] + sum[3]);
}

template <class T>
__device__ void normalise(float (&v)[kEach], float scale, const float (&weight)[kEach]) {
#pragma unroll
  for (int e = 0; e < kEach; ++e) v[e] *= scale;
  unpack<T>(pack<T>(v), v);
#pragma unroll
  for (int e = 0; e < kEach; ++e) v[e] *= weight[e];
  unpack<T>(pack<T>(v), v);
}

/// A block a token and some of its heads; several heads a warp. A lane holds elements i and i + head_dim/2 of
/// one, which rotate into each other, for four i. kNorm: queries and keys are normed before. C: of keys and
/// values; e4m3 is rounded from what T would be rounded from.
template <class T, class C, int kDim, bool kNorm>
__global__ void __launch_bounds__(kThreads) rope_cache_kernel(const __grid_constant__ RopeParams params) {
  constexpr int kHalf = kDim / 2, kLanes = kHalf / kEach;
  const RopeArgs& args = params.args;
  const int token = blockIdx.x, i = threadIdx.x % kLanes * kEach;
  const int heads = args.num_heads, kv_heads = args.kv.num_kv_heads, all_heads = heads + 2 * kv_heads;
  const int head =
      static_cast<int>(blockIdx.y) * heads_of_block(kDim) + static_cast<int>(threadIdx.x) / kLanes;
  const bool query = head < heads, value = head >= heads + kv_heads, valid = head < all_heads;
  // What is no kernel's output is read before the wait.
  const int64_t angle = static_cast<int64_t>(params.positions[token]) * kHalf + i;
  const int32_t slot = params.slot_mapping[token];
  const auto load = [](const void* from, int64_t at) {
    return *reinterpret_cast<const uint2*>(static_cast<const T*>(from) + at);
  };
  const void* const weight = query ? args.q_norm.data : args.k_norm.data;
  uint2 weight_low{}, weight_high{};
  if constexpr (kNorm) weight_low = load(weight, i), weight_high = load(weight, i + kHalf);
  const float4 cos4 = *reinterpret_cast<const float4*>(static_cast<const float*>(args.cos.data) + angle);
  const float4 sin4 = *reinterpret_cast<const float4*>(static_cast<const float*>(args.sin.data) + angle);
  dependency_wait();
  dependents_launch();
  const int64_t in = (static_cast<int64_t>(token) * all_heads + head) * kDim + i;
  uint2 low_bits{}, high_bits{};
  if (valid) low_bits = load(args.qkv.data, in), high_bits = load(args.qkv.data, in + kHalf);
  float low[kEach], high[kEach];
  unpack<T>(low_bits, low);
  unpack<T>(high_bits, high);
  float scale = 1;
  if constexpr (kNorm) scale = rsqrtf(fmaf(sum_of_squares<kLanes>(low, high), 1.0F / kDim, args.eps));
  if (!valid) return;
  if (!value) {
    if constexpr (kNorm) {
      float factor[kEach];
      unpack<T>(weight_low, factor);
      normalise<T>(low, scale, factor);
      unpack<T>(weight_high, factor);
      normalise<T>(high, scale, factor);
    }
    const float cos[kEach] = {cos4.x, cos4.y, cos4.z, cos4.w}, sin[kEach] = {sin4.x, sin4.y, sin4.z, sin4.w};
    float rotated_low[kEach], rotated_high[kEach];
#pragma unroll
    for (int e = 0; e < kEach; ++e) {
      rotated_low[e] = fmaf(low[e], cos[e], -(high[e] * sin[e]));
      rotated_high[e] = fmaf(high[e], cos[e], low[e] * sin[e]);
    }
    low_bits = pack<T>(rotated_low);
    high_bits = pack<T>(rotated_high);
    if constexpr (std::is_same_v<C, E4m3>) {
#pragma unroll
      for (int e = 0; e < kEach; ++e) low[e] = rotated_low[e], high[e] = rotated_high[e];
    }
  }
  void* to = args.q.data;
  int64_t row = static_cast<int64_t>(token) * heads + head;
  if (!query) {
    to = value ? args.kv.v.data : args.kv.k.data;
    row = cache_row(args.kv, slot / args.kv.block_size, slot % args.kv.block_size,
                    head - heads - (value ? kv_heads : 0));
  }
  if constexpr (std::is_same_v<C, E4m3>) {
    if (!query) {
      const unsigned lanes = kFullMask >> (kWarpSize - kLanes) << threadIdx.x % kWarpSize / kLanes * kLanes;
      const bool nan = __any_sync(lanes, has_nan(low) || has_nan(high));
      const float scale = value ? args.kv.v_scale : args.kv.k_scale;
      E4m3* const out = static_cast<E4m3*>(to) + row * kDim + i;
      store_rounded(low, scale, nan, out);
      store_rounded(high, scale, nan, out + kHalf);
      return;
    }
  }
  T* const out = static_cast<T*>(to) + row * kDim + i;
  *reinterpret_cast<uint2*>(out) = low_bits;
  *reinterpret_cast<uint2*>(out + kHalf) = high_bits;
}

}  // namespace

// ---------------------------------------------------------------- launchers

void launch_rope_cache(DType dtype, const DevicePlan& plan, const RopeArgs& args, cudaStream_t stream) {
  if (plan.num_tokens == 0) return;
  const bool wide_norm = args.q_norm.data && args.q_norm.dtype == DType::float32;
  if (args.gated || wide_norm || args.scales.data || args.interleaved ||
      2 * args.cos.cols != args.kv.head_dim)
    return launch_rope_heads(dtype, plan, args, stream);
  const RopeParams params{args, plan.positions.data, plan.slot_mapping.data};
  with_cache(dtype, args.kv, [&]<class T, class C, int kDim>() {
    const int all_heads = args.num_heads + 2 * args.kv.num_kv_heads;
    const dim3 grid(static_cast<unsigned>(plan.num_tokens),
                    static_cast<unsigned>(ceil_div(all_heads, heads_of_block(kDim))));
    const auto kernel =
        args.q_norm.data ? rope_cache_kernel<T, C, kDim, true> : rope_cache_kernel<T, C, kDim, false>;
    launch_dependent(kernel, grid, kThreads, 0, stream, params);
  });
}

}  // namespace moerun
