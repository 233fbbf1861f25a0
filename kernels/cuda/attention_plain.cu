#include "kernels/cuda/attention_plain.h"
#include "kernels/cuda/hopper.cuh"

namespace moerun {
namespace {

using namespace cuda;

constexpr int kWarps = 4, kThreads = kWarps * kWarpSize;

struct RopeParams {
  RopeArgs args;
  const int32_t *positions, *slot_mapping;
};

struct AttentionParams {
  AttentionArgs args;
  const int32_t *cu_seqlens_q, *context_lens, *block_table;
  int32_t num_seqs, max_blocks;
};

// ---------------------------------------------------------------- kernels

/// Elements of the cache before those of (slot, head).
__device__ int64_t cache_offset(const KvLayer& kv, int32_t block, int32_t offset, int32_t head) {
  return ((static_cast<int64_t>(block) * kv.num_kv_heads + head) * kv.block_size + offset) * kv.head_dim;
}

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
            cache_offset(args.kv, slot / args.kv.block_size, slot % args.kv.block_size,
                         (head - heads) % kv_heads);
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

/// The sequence of a token: the last one that begins at or before it.
__device__ int32_t sequence_of(const AttentionParams& params, int32_t token) {
  int32_t low = 0, high = params.num_seqs - 1;
  while (low < high) {
    const int32_t middle = (low + high + 1) / 2;
    if (params.cu_seqlens_q[middle] <= token)
      low = middle;
    else
      high = middle - 1;
  }
  return low;
}

template <class T, int kDim>
__global__ void __launch_bounds__(kThreads) attention_kernel(const __grid_constant__ AttentionParams params) {
  dependency_wait();
  dependents_launch();
  constexpr int kEach = kDim / kWarpSize;
  __shared__ float queries[kWarps][kDim];
  const AttentionArgs& args = params.args;
  const KvLayer& kv = args.kv;
  const int lane = threadIdx.x % kWarpSize, warp = threadIdx.x / kWarpSize;
  const int32_t token = blockIdx.x, head = blockIdx.y * kWarps + warp;
  if (head >= args.num_heads) return;
  const int32_t sequence = sequence_of(params, token);
  const int32_t position = params.context_lens[sequence] - (params.cu_seqlens_q[sequence + 1] - token);
  const int32_t kv_head = head / (args.num_heads / kv.num_kv_heads);
  const int64_t row = (static_cast<int64_t>(token) * args.num_heads + head) * kDim;
  float* const query = queries[warp];
  for (int i = lane; i < kDim; i += kWarpSize)
    query[i] = Element<T>::to_float(static_cast<const T*>(args.q.data)[row + i]);
  __syncwarp();

  float highest = -INFINITY, total = 0, sums[kEach] = {};
  for (int32_t first = 0; first <= position; first += kWarpSize) {
    const int32_t block = params.block_table[sequence * params.max_blocks + first / kv.block_size];
    const int64_t keys = cache_offset(kv, block, first % kv.block_size, kv_head);
    float score = -INFINITY;  // of key first + lane
    if (first + lane <= position) {
      score = 0;
      const auto* const key =
          reinterpret_cast<const uint4*>(static_cast<const T*>(kv.k.data) + keys + lane * kDim);
#pragma unroll
      for (int i = 0; i < kDim / 8; ++i) {
        const uint4 bits = key[i];
        const uint32_t pairs[4] = {bits.x, bits.y, bits.z, bits.w};
#pragma unroll
        for (int j = 0; j < 4; ++j) {
          const float2 pair = unpack_floats<T>(pairs[j]);
          score = fmaf(pair.x, query[i * 8 + j * 2], score);
          score = fmaf(pair.y, query[i * 8 + j * 2 + 1], score);
        }
      }
      score *= args.scale;
    }
    float now = fmaxf(highest, score);
    for (int d = kWarpSize / 2; d > 0; d /= 2) now = fmaxf(now, __shfl_xor_sync(kFullMask, now, d));
    const float shrink = __expf(highest - now), weight = __expf(score - now);
    highest = now;
    float sum = weight;
    for (int d = kWarpSize / 2; d > 0; d /= 2) sum += __shfl_xor_sync(kFullMask, sum, d);
    total = fmaf(total, shrink, sum);
#pragma unroll
    for (float& s : sums) s *= shrink;
    const T* const values = static_cast<const T*>(kv.v.data) + keys;
    const int count = min(kWarpSize, position - first + 1);
    for (int i = 0; i < count; ++i) {
      const float of_key = __shfl_sync(kFullMask, weight, i);
#pragma unroll
      for (int e = 0; e < kEach; ++e)
        sums[e] = fmaf(of_key, Element<T>::to_float(values[i * kDim + e * kWarpSize + lane]), sums[e]);
    }
  }
  T* const out = static_cast<T*>(args.out.data) + row;
#pragma unroll
  for (int e = 0; e < kEach; ++e) out[e * kWarpSize + lane] = Element<T>::from_float(sums[e] / total);
}

// ---------------------------------------------------------------- launchers

/// Calls f with the element type and the head size.
template <class F>
void with_head(DType dtype, int32_t head_dim, F&& f) {
  if (head_dim != 64 && head_dim != 128)
    throw Error("attention on the GPU takes head sizes of 64 and 128, not " + std::to_string(head_dim));
  with_element(dtype, [&]<class T>(T) {
    if (head_dim == 64)
      f.template operator()<T, 64>();
    else
      f.template operator()<T, 128>();
  });
}

}  // namespace

void launch_rope_cache_plain(DType dtype, const DevicePlan& plan, const RopeArgs& args, cudaStream_t stream) {
  if (plan.num_tokens == 0) return;
  const RopeParams params{args, plan.positions.data, plan.slot_mapping.data};
  with_head(dtype, args.kv.head_dim, [&]<class T, int kDim>() {
    launch_dependent(rope_cache_kernel<T, kDim>, static_cast<unsigned>(plan.num_tokens), kThreads, 0, stream,
                     params);
  });
}

void launch_attention_plain(DType dtype, const DevicePlan& plan, const AttentionArgs& args,
                            cudaStream_t stream) {
  if (args.kv.block_size % kWarpSize != 0)
    throw Error("attention on the GPU takes blocks of a multiple of 32 tokens, not " +
                std::to_string(args.kv.block_size));
  if (plan.num_tokens == 0) return;
  const AttentionParams params{
      args,          plan.cu_seqlens_q.data, plan.context_lens.data, plan.block_table.data,
      plan.num_seqs, plan.max_blocks};
  const dim3 grid(static_cast<unsigned>(plan.num_tokens),
                  static_cast<unsigned>(ceil_div(args.num_heads, kWarps)));
  with_head(dtype, args.kv.head_dim, [&]<class T, int kDim>() {
    launch_dependent(attention_kernel<T, kDim>, grid, kThreads, 0, stream, params);
  });
}

}  // namespace moerun
