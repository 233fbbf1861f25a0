// The products take keys as rows and query heads as columns: Sᵀ [16 keys, 8 heads] = K·Qᵀ, then
// Oᵀ [head_dim, 8 heads] += Vᵀ·P. Keys and values go from memory straight to the registers where the matrix
// instruction wants them: the order of what is summed over may be chosen freely, so a lane's 16 bytes of a
// key are four operand registers, and two keys' values become transposed operands by one byte permutation
// each. No shared memory, no barrier, nothing but loads in flight: the kernel runs at the speed of the
// memory. Keys and values in e4m3 are widened in those registers.
#include "kernels/cuda/attention_decode.h"

#include <algorithm>

#include "kernels/cuda/decode_slice.cuh"
#include "kernels/cuda/hopper.cuh"
#include "kernels/cuda/limits.h"

namespace moerun {
namespace {

using namespace cuda;

constexpr int kWarps = 4, kThreads = kWarps * kWarpSize;
constexpr int kSliceKeys = 16;  // a warp at a time
constexpr int kSpanKeys = 512;  // a thread block
constexpr int kMinBlockSize = limits::kBlockTokens;
constexpr int64_t kMaxWorkspaceFloats = int64_t{32} << 20;

struct Params {
  AttentionArgs args;
  const int32_t *cu_seqlens_q, *context_lens, *block_table;
  int32_t first_seq, max_blocks, max_spans;
  int32_t parts;      // thread blocks that have some query heads of a key head each
  float* sums;        // [seqs, max_spans, heads, head_dim] of the spans, not yet divided
  float2* scales;     // [seqs, max_spans, heads] maximum and total
  int32_t* arrivals;  // [seqs, kv_heads · parts]
};

// ---------------------------------------------------------------- kernels

__device__ __forceinline__ uint32_t transposed_8x8(uint32_t m) {
  uint32_t out;
  asm volatile("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(out) : "r"(m));
  return out;
}

/// A warp's running state for eight heads. Lane (g, t) holds heads 2t and 2t + 1: the maximum so far, its own
/// keys' share of the total, and of head 2t + c in sums[2m], sums[2m + 1]: elements value_element(m) and on.
template <class T, class C, int kDim>
struct Heads {
  /// With e4m3, and with heads of 256, all warps read the queries from shared memory, and the registers are
  /// for more warps, or for a slice.
  static constexpr bool kShares = std::is_same_v<C, E4m3> || kDim > 128;
  static constexpr int kSteps = kDim / 16;
  uint2 queries[kShares ? 1 : kSteps];
  const uint2* shared_queries = nullptr;  // the lane's
  float highest[2] = {-INFINITY, -INFINITY}, total[2] = {}, sums[kDim / 16][4] = {};

  /// `shared` [kSteps, lanes]; where queries are shared the block's threads meet before they use it.
  __device__ void load_queries(const T* first, int32_t count, int lane, uint2* shared) {
    const int g = lane / 4, t = lane % 4;
    shared_queries = shared + lane;
    if (kShares && threadIdx.x >= kWarpSize) return;
#pragma unroll
    for (int step = 0; step < kSteps; step += 2) {
      const uint4 v = load16(first + g * kDim + Slice<T, C, kDim>::key_element(step, t), g < count);
      uint2* const to = kShares ? shared + lane : queries;
      constexpr int kApart = kShares ? kWarpSize : 1;
      to[step * kApart] = make_uint2(v.x, v.y), to[(step + 1) * kApart] = make_uint2(v.z, v.w);
    }
  }

  /// scores[2r + c]: key g + 8r, head 2t + c.
  __device__ void score(const Slice<T, C, kDim>& slice, float (&scores)[4]) const {
#pragma unroll
    for (float& s : scores) s = 0;
#pragma unroll
    for (int step = 0; step < kSteps; ++step) {
      uint32_t a[4];
      slice.key_operand(step, a);
      const uint2 b = kShares ? shared_queries[step * kWarpSize] : queries[step];
      mma_16x8x16<T>(scores, a[0], a[1], a[2], a[3], b.x, b.y);
    }
  }

  /// Takes the scores of a slice with `count` keys into the state; `weights` are the operand of add_values.
  __device__ void soften(float (&scores)[4], int32_t count, float scale, int lane, uint32_t (&weights)[2]) {
    const int g = lane / 4;
    if (g >= count) scores[0] = scores[1] = -INFINITY;
    if (g + 8 >= count) scores[2] = scores[3] = -INFINITY;
    float shrink[2];
#pragma unroll
    for (int c = 0; c < 2; ++c) {
      float now = fmaxf(highest[c], fmaxf(scores[c], scores[2 + c]));
#pragma unroll
      for (int d = 4; d < kWarpSize; d *= 2) now = fmaxf(now, __shfl_xor_sync(kFullMask, now, d));
      shrink[c] = exp2_approx((highest[c] - now) * scale);
      highest[c] = now;
      const float offset = -now * scale;
      scores[c] = exp2_approx(fmaf(scores[c], scale, offset));
      scores[2 + c] = exp2_approx(fmaf(scores[2 + c], scale, offset));
      total[c] = fmaf(total[c], shrink[c], scores[c] + scores[2 + c]);
    }
    weights[0] = transposed_8x8(pack_floats<T>(scores[0], scores[1]));
    weights[1] = transposed_8x8(pack_floats<T>(scores[2], scores[3]));
#pragma unroll
    for (auto& s : sums) s[0] *= shrink[0], s[1] *= shrink[1], s[2] *= shrink[0], s[3] *= shrink[1];
  }

  __device__ void add_values(const Slice<T, C, kDim>& slice, const uint32_t (&weights)[2]) {
#pragma unroll
    for (int m = 0; m < kDim / 16; ++m) {
      uint32_t a[4];
      slice.value_operand(m, a);
      mma_16x8x16<T>(sums[m], a[0], a[1], a[2], a[3], weights[0], weights[1]);
    }
  }
};

/// What the warps of a thread block leave for each other.
template <int kDim, int kHeads, bool kSharesQueries>
struct Shared {
  alignas(16) float sums[kWarps][kHeads][kDim];
  float2 scales[kWarps][kHeads];  // maximum, total
  int32_t blocks[kSpanKeys / kMinBlockSize + 1];
  uint2 queries[kHeads / 8][kSharesQueries ? kDim / 16 * kWarpSize : 1];
  bool last;
};

/// A thread's elements [4·(first + i·stride), + 4) of one head.
template <int kPieces>
struct Combined {
  float highest = -INFINITY, total = 0;
  float4 sums[kPieces] = {};

  __device__ void add(float2 part_scale, float scale, const float4 (&part)[kPieces]) {
    const float weight = exp2_approx((part_scale.x - highest) * scale);
    total = fmaf(weight, part_scale.y, total);
#pragma unroll
    for (int i = 0; i < kPieces; ++i) {
      sums[i].x = fmaf(weight, part[i].x, sums[i].x), sums[i].y = fmaf(weight, part[i].y, sums[i].y);
      sums[i].z = fmaf(weight, part[i].z, sums[i].z), sums[i].w = fmaf(weight, part[i].w, sums[i].w);
    }
  }
};

template <class T, class C, int kDim, int kTiles>
__global__ void __launch_bounds__(kThreads, kTiles > 1 || kDim > 128  ? 2
                                            : std::is_same_v<C, E4m3> ? 5
                                                                      : 3)
    attention_decode_kernel(const __grid_constant__ Params params) {
  constexpr int kHeads = 8 * kTiles, kThreadsAHead = kThreads / kHeads, kPieces = kDim / 4 / kThreadsAHead;
  __shared__ Shared<kDim, kHeads, Heads<T, C, kDim>::kShares> shared;
  dependency_wait();
  dependents_launch();
  const AttentionArgs& args = params.args;
  const KvLayer& kv = args.kv;
  const int lane = threadIdx.x % kWarpSize, warp = threadIdx.x / kWarpSize;
  const int32_t kv_head = blockIdx.x / params.parts, part_of_heads = blockIdx.x % params.parts;
  const int32_t sequence = params.first_seq + blockIdx.y, span = blockIdx.z;
  const int32_t context = params.context_lens[sequence], begin = span * kSpanKeys;
  if (begin >= context) return;
  const int32_t end = min(context, begin + kSpanKeys), num_spans = ceil_div(context, kSpanKeys);
  const int32_t all_of_group = args.num_heads / kv.num_kv_heads;
  const int32_t first_head = kv_head * all_of_group + part_of_heads * kHeads;
  const int32_t group = min(kHeads, all_of_group - part_of_heads * kHeads);
  const int32_t first_block = begin / kv.block_size;
  if (threadIdx.x <= (end - 1) / kv.block_size - first_block)
    shared.blocks[threadIdx.x] =
        params.block_table[static_cast<int64_t>(sequence) * params.max_blocks + first_block + threadIdx.x];
  const int64_t query_row = static_cast<int64_t>(params.cu_seqlens_q[sequence]) * args.num_heads + first_head;
  Heads<T, C, kDim> heads[kTiles];
#pragma unroll
  for (int tile = 0; tile < kTiles; ++tile)
    heads[tile].load_queries(static_cast<const T*>(args.q.data) + (query_row + 8 * tile) * kDim,
                             group - 8 * tile, lane, shared.queries[tile]);
  __syncthreads();

  const float scale = args.scale * kv.k_scale * kLog2E;
  const auto row_of = [&](int32_t key) {
    return cache_row(kv, shared.blocks[key / kv.block_size - first_block], key % kv.block_size, kv_head);
  };
  uint32_t worst = 0;  // byte of e4m3
  int32_t key = begin + warp * kSliceKeys;
  Slice<T, C, kDim> slice;
  if (key < end) {
    const int64_t row = row_of(key);
    slice.load_keys(kv.k.data, row, end - key, lane);
    slice.load_values(kv.v.data, row, end - key, lane);
  }
  while (key < end) {
    const int32_t count = end - key;
    slice.look_at_keys(worst);
    float scores[kTiles][4];
#pragma unroll
    for (int tile = 0; tile < kTiles; ++tile) heads[tile].score(slice, scores[tile]);
    key += kWarps * kSliceKeys;
    const bool more = key < end;
    const int64_t row = more ? row_of(key) : 0;
    if (more) slice.load_keys(kv.k.data, row, end - key, lane);
    slice.look_at_values(worst);
#pragma unroll
    for (int tile = 0; tile < kTiles; ++tile) {
      uint32_t weights[2];
      heads[tile].soften(scores[tile], count, scale, lane, weights);
      heads[tile].add_values(slice, weights);
    }
    if (more) slice.load_values(kv.v.data, row, end - key, lane);
  }

  const bool has_nan = __any_sync(kFullMask, worst == kE4m3Nan);

  // The warps of this span, ascending.
  const int g = lane / 4, t = lane % 4;
#pragma unroll
  for (int tile = 0; tile < kTiles; ++tile) {
#pragma unroll
    for (int c = 0; c < 2; ++c) {
      const int head = 8 * tile + 2 * t + c;
      float total = has_nan ? nanf("") : heads[tile].total[c];
#pragma unroll
      for (int d = 4; d < kWarpSize; d *= 2) total += __shfl_xor_sync(kFullMask, total, d);
      if (g == 0) shared.scales[warp][head] = make_float2(heads[tile].highest[c], total);
#pragma unroll
      for (int m = 0; m < kDim / 32; ++m) {
        const float(&low)[4] = heads[tile].sums[2 * m], (&high)[4] = heads[tile].sums[2 * m + 1];
        *reinterpret_cast<float4*>(&shared.sums[warp][head][Slice<T, C, kDim>::value_element(m, g)]) =
            make_float4(low[c], low[2 + c], high[c], high[2 + c]);
      }
    }
  }
  __syncthreads();
  const int head = threadIdx.x / kThreadsAHead, first = threadIdx.x % kThreadsAHead;
  const bool real = head < group;
  Combined<kPieces> combined;
#pragma unroll
  for (int w = 0; w < kWarps; ++w) combined.highest = fmaxf(combined.highest, shared.scales[w][head].x);
#pragma unroll
  for (int w = 0; w < kWarps; ++w) {
    float4 part[kPieces];
#pragma unroll
    for (int i = 0; i < kPieces; ++i)
      part[i] = reinterpret_cast<const float4*>(shared.sums[w][head])[first + i * kThreadsAHead];
    combined.add(shared.scales[w][head], scale, part);
  }

  if (num_spans > 1) {
    const auto part_row = [&](int32_t s) {
      return (static_cast<int64_t>(blockIdx.y) * params.max_spans + s) * args.num_heads + first_head + head;
    };
    if (real) {
      auto* const sums = reinterpret_cast<float4*>(params.sums + part_row(span) * kDim);
#pragma unroll
      for (int i = 0; i < kPieces; ++i) __stcg(sums + first + i * kThreadsAHead, combined.sums[i]);
      if (first == 0) __stcg(params.scales + part_row(span), make_float2(combined.highest, combined.total));
    }
    // The last thread block of the sequence and head to arrive combines its spans, ascending.
    __threadfence();
    __syncthreads();
    if (threadIdx.x == 0) {
      int32_t* const arrivals = params.arrivals + blockIdx.y * gridDim.x + blockIdx.x;
      shared.last = atomicAdd(arrivals, 1) == num_spans - 1;
      if (shared.last) *arrivals = 0;
      __threadfence();
    }
    __syncthreads();
    if (!shared.last || !real) return;
    combined = {};
    for (int32_t s = 0; s < num_spans; ++s)
      combined.highest = fmaxf(combined.highest, __ldcg(params.scales + part_row(s)).x);
#pragma unroll 4
    for (int32_t s = 0; s < num_spans; ++s) {
      const auto* const sums = reinterpret_cast<const float4*>(params.sums + part_row(s) * kDim);
      float4 part[kPieces];
#pragma unroll
      for (int i = 0; i < kPieces; ++i) part[i] = __ldcg(sums + first + i * kThreadsAHead);
      combined.add(__ldcg(params.scales + part_row(s)), scale, part);
    }
  }
  if (!real) return;
  auto* const out = reinterpret_cast<uint2*>(static_cast<T*>(args.out.data) + (query_row + head) * kDim);
  const float inverse = 1 / combined.total * kv.v_scale;
#pragma unroll
  for (int i = 0; i < kPieces; ++i) {
    const float4& v = combined.sums[i];
    out[first + i * kThreadsAHead] = make_uint2(pack_floats<T>(v.x * inverse, v.y * inverse),
                                                pack_floats<T>(v.z * inverse, v.w * inverse));
  }
}

// ---------------------------------------------------------------- launchers

/// Floats that a span of one sequence takes.
int64_t floats_a_span(int64_t num_heads, int64_t head_dim) { return num_heads * (head_dim + 2); }

/// Thread blocks of a key head, at most: eight query heads each.
int64_t most_parts(int64_t num_heads, int64_t num_kv_heads) {
  return num_kv_heads > 0 ? ceil_div<int64_t>(num_heads / num_kv_heads, 8) : 1;
}

}  // namespace

DecodeWorkspace decode_workspace_for(const StepLimits& limits) {
  // A plan's longest context is rounded up, so the room for one sequence is too.
  const int64_t longest =
      ceil_div<int64_t>(limits.max_model_len, DevicePlan::kContextStep) * DevicePlan::kContextStep;
  const int64_t a_sequence =
      ceil_div<int64_t>(longest, kSpanKeys) * floats_a_span(limits.num_heads, limits.head_dim);
  return {.num_floats = std::max(a_sequence, std::min(limits.max_num_seqs * a_sequence, kMaxWorkspaceFloats)),
          .num_arrivals =
              limits.max_num_seqs * limits.num_kv_heads * most_parts(limits.num_heads, limits.num_kv_heads)};
}

void launch_attention_decode(DType dtype, const DevicePlan& plan, const AttentionArgs& args,
                             const DecodeWorkspace& workspace, bool after_kernel, cudaStream_t stream) {
  if (plan.num_seqs == plan.num_prefill_seqs) return;
  const int32_t kv_heads = args.kv.num_kv_heads, group = args.num_heads / kv_heads;
  if (args.kv.block_size % kMinBlockSize != 0)
    throw Error("attention on the GPU takes blocks of a multiple of 32 tokens, not " +
                std::to_string(args.kv.block_size));
  if (group > limits::kMaxGroup || args.num_heads % kv_heads != 0)
    throw Error("attention on the GPU takes 1 to 16 query heads for each key head, not " +
                std::to_string(args.num_heads) + " for " + std::to_string(kv_heads));
  // Sums of sixteen heads of 256 are more than the registers hold.
  const int32_t parts = args.kv.head_dim > 128 ? ceil_div(group, 8) : 1;
  const int32_t max_spans = ceil_div(plan.max_context_len, kSpanKeys);
  const int64_t spans_at_once = workspace.num_floats / floats_a_span(args.num_heads, args.kv.head_dim);
  const auto seqs_at_once =
      static_cast<int32_t>(std::min({spans_at_once / max_spans, workspace.num_arrivals / (kv_heads * parts),
                                     int64_t{plan.num_seqs - plan.num_prefill_seqs}}));
  if (seqs_at_once == 0)
    throw Error("attention over contexts of " + std::to_string(plan.max_context_len) +
                " tokens is more than room was made for");
  Params params{.args = args,
                .cu_seqlens_q = plan.cu_seqlens_q.data,
                .context_lens = plan.context_lens.data,
                .block_table = plan.block_table.data,
                .max_blocks = plan.max_blocks,
                .max_spans = max_spans,
                .parts = parts,
                .sums = workspace.partials,
                .scales = reinterpret_cast<float2*>(workspace.partials + static_cast<int64_t>(seqs_at_once) *
                                                                             max_spans * args.num_heads *
                                                                             args.kv.head_dim),
                .arrivals = workspace.arrivals};
  for (params.first_seq = plan.num_prefill_seqs; params.first_seq < plan.num_seqs;
       params.first_seq += seqs_at_once) {
    const int32_t num_seqs = std::min(seqs_at_once, plan.num_seqs - params.first_seq);
    // Spans last: the thread blocks past a sequence's end come last, and so do the shorter ones.
    const dim3 grid(static_cast<unsigned>(kv_heads * parts), static_cast<unsigned>(num_seqs),
                    static_cast<unsigned>(max_spans));
    const Follow follow =
        after_kernel || params.first_seq > plan.num_prefill_seqs ? Follow::kernel : Follow::anything;
    with_cache(dtype, args.kv, [&]<class T, class C, int kDim>() {
      if (group <= 8 || kDim > 128)
        launch(follow, attention_decode_kernel<T, C, kDim, 1>, grid, kThreads, 0, stream, params);
      else if constexpr (kDim <= 128)
        launch(follow, attention_decode_kernel<T, C, kDim, 2>, grid, kThreads, 0, stream, params);
    });
  }
}

}  // namespace moerun
