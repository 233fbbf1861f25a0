// The chunked gated delta rule, for sequences that prefill. A block has one head's state for 64 columns of
// its values, a warp 16 of them, transposed and in registers, in float32, from chunk to chunk. With c the
// summed log decays of a chunk, what position i writes, u_i, solves
//   u_i = β_i (v_i − e^{c_i} k_i·S) − Σ_{j<i} β_i e^{c_i − c_j} (k_i·k_j) u_j,
// and its output is e^{c_i} q_i·S + Σ_{j≤i} e^{c_i − c_j} (q_i·k_j) u_j. The system is solved by blocks of 16
// positions, whose own inverses are made beforehand.
//
// All products take the tensor cores in tf32. A lane's sums of a transposed product (columns of values ×
// positions) are its operand of the next one where positions 2t and 2t + 1 stand in the places t and t + 4 of
// what is summed over; so nothing but keys, queries and the chunk's own products goes through shared memory.
#include "kernels/cuda/delta_net.cuh"
#include "kernels/cuda/delta_net.h"
#include "kernels/cuda/delta_tiles.cuh"
#include "kernels/cuda/hopper.cuh"

namespace moerun {
namespace {

using namespace cuda;

constexpr int kWarps = 4, kThreads = kWarps * kWarpSize, kColumns = 16 * kWarps;
constexpr int kChunk = kDeltaChunk, kDim = kMaxDeltaDim, kBlock = 16, kBlocks = kChunk / kBlock;
constexpr int kStride = kChunk + 8;  // of products among positions: no bank conflicts where pairs are read
static_assert(kChunk == 64 && kDim == 128);

struct RuleParams {
  DeltaSequences sequences;
  DeltaPlaces places;
  const void* qkv;
  const float* gates;
  float* memory;
  void* out;
};

struct RuleShared {
  float keys[kChunk * kDim], queries[kChunk * kDim];  // at key_at()
  /// −β_i e^{c_i − c_j} k_i·k_j; on the diagonal blocks of 16 the inverses of I minus that.
  float system[kChunk * kStride];
  float weights[kChunk * kStride];  // e^{c_i − c_j} q_i·k_j
  float decays[kChunk], betas[kChunk];
  float from_begin[kChunk], to_end[kChunk];  // e^{c_i}, e^{c_last − c_i}
};

// ---------------------------------------------------------------- kernels

/// A row of length `length`, rounded to tf32, to its place.
__device__ void store_key(float4 v, float length, float* keys, int position) {
  const int lane = threadIdx.x % kWarpSize;
  const float squares = fmaf(v.w, v.w, fmaf(v.z, v.z, fmaf(v.y, v.y, v.x * v.x)));
  const float scale = to_length_one(warp_sum(squares)) * length;
  *reinterpret_cast<float4*>(keys + key_at(position, 4 * lane)) =
      make_float4(tf32(v.x * scale), tf32(v.y * scale), tf32(v.z * scale), tf32(v.w * scale));
}

/// Keys and queries of `count` tokens from `token` on; zeros in the place of others. A warp 16 positions.
template <class T>
__device__ void load_keys(const RuleParams& params, RuleShared& shared, int32_t head, int64_t token,
                          int32_t count) {
  constexpr int kAtOnce = 8;
  const DeltaPlaces& places = params.places;
  const int lane = threadIdx.x % kWarpSize, warp = threadIdx.x / kWarpSize;
  const T* const from = static_cast<const T*>(params.qkv) + token * places.channels +
                        head / places.group * places.key_dim + 4 * lane;
  const float length = 1.0F / sqrtf(static_cast<float>(places.key_dim));
  for (int first = warp * kBlock; first < (warp + 1) * kBlock; first += kAtOnce) {
    float4 q[kAtOnce], k[kAtOnce];
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) {
      const bool valid = first + i < count && 4 * lane < places.key_dim;
      const T* const row = from + static_cast<int64_t>(first + i) * places.channels;
      q[i] = load4(row, valid), k[i] = load4(row + places.keys, valid);
    }
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) {
      store_key(q[i], length, shared.queries, first + i);
      store_key(k[i], 1, shared.keys, first + i);
    }
  }
}

/// Asks for what the next chunk's keys, queries and values will be, so that they come from L2.
template <class T>
__device__ void ask_for(const RuleParams& params, int32_t head, int32_t first_column, int32_t token,
                        int32_t end) {
  const DeltaPlaces& places = params.places;
  const int32_t own = token + static_cast<int32_t>(threadIdx.x) % kChunk;
  if (own >= end) return;
  const T* const row = static_cast<const T*>(params.qkv) + static_cast<int64_t>(own) * places.channels;
  const T* const key = row + head / places.group * places.key_dim + (threadIdx.x < kChunk ? 0 : places.keys);
  prefetch_l2(key);
  if (places.key_dim > 64) prefetch_l2(key + 64);
  if (threadIdx.x < kChunk) prefetch_l2(row + 2 * places.keys + head * places.value_dim + first_column);
}

/// By one warp, a lane two positions: a scan over lanes. Positions past `count` neither decay nor write.
__device__ void load_gates(const RuleParams& params, RuleShared& shared, int32_t head, int64_t token,
                           int32_t count) {
  const int lane = threadIdx.x % kWarpSize;
  const int32_t heads = params.places.num_value_heads;
  float decay[2] = {}, beta[2] = {};
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const float* const gates = params.gates + (token + 2 * lane + i) * 2 * heads + head;
    if (2 * lane + i < count) decay[i] = gates[0], beta[i] = gates[heads];
  }
  float sum = decay[0] + decay[1];
#pragma unroll
  for (int d = 1; d < kWarpSize; d *= 2) {
    const float before = __shfl_up_sync(kFullMask, sum, d);
    if (lane >= d) sum += before;
  }
  const float last = __shfl_sync(kFullMask, sum, kWarpSize - 1);
  const float before = __shfl_up_sync(kFullMask, sum, 1);
  const float first = (lane > 0 ? before : 0.0F) + decay[0];
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const float c = i == 0 ? first : sum;
    shared.decays[2 * lane + i] = c;
    shared.betas[2 * lane + i] = beta[i];
    shared.from_begin[2 * lane + i] = expf(c);
    shared.to_end[2 * lane + i] = expf(last - c);
  }
}

/// Rows [16m, 16m + 16) of the system or of the weights, as far as they are not above the diagonal.
template <bool kSystem>
__device__ void multiply_positions(RuleShared& shared, int m) {
  const int lane = threadIdx.x % kWarpSize, g = lane / 4, t = lane % 4;
  const float* const rows = kSystem ? shared.keys : shared.queries;
  float* const out = kSystem ? shared.system : shared.weights;
  Tile sums[2 * kBlocks] = {};
#pragma unroll 4
  for (int step = 0; step < kDim / 8; ++step) {
    const float2 low = pair_at(rows + key_at(m * kBlock + g, step * 8 + 2 * t)),
                 high = pair_at(rows + key_at(m * kBlock + 8 + g, step * 8 + 2 * t));
    const Tile a = {low.x, low.y, high.x, high.y};
#pragma unroll
    for (int n = 0; n < 2 * kBlocks; ++n) {
      if (n / 2 > m) break;
      const float2 b = pair_at(shared.keys + key_at(n * 8 + g, step * 8 + 2 * t));
      multiply(sums[n], a, b.x, b.y);
    }
  }
#pragma unroll
  for (int n = 0; n < 2 * kBlocks; ++n) {
    if (n / 2 > m) break;
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      const int i = m * kBlock + e / 2 * 8 + g, j = n * 8 + 2 * t + e % 2;
      float value = 0;
      if (kSystem ? j < i : j <= i) {
        value = expf(shared.decays[i] - shared.decays[j]) * sums[n][e];
        if (kSystem) value *= -shared.betas[i];
      }
      out[i * kStride + j] = tf32(value);
    }
  }
}

/// The inverses of the diagonal blocks, by 64 threads: a column each, from the top.
__device__ void invert_blocks(RuleShared& shared) {
  const int block = threadIdx.x / kBlock, column = threadIdx.x % kBlock;
  float* const own = shared.system + block * kBlock * (kStride + 1);
  float x[kBlock];
#pragma unroll
  for (int i = 0; i < kBlock; ++i) {
    float sum = i == column ? 1.0F : 0.0F;
#pragma unroll
    for (int j = 0; j < i; ++j) sum = fmaf(own[i * kStride + j], x[j], sum);
    x[i] = sum;
  }
  __syncwarp();
#pragma unroll
  for (int i = 0; i < kBlock; ++i) own[i * kStride + column] = tf32(x[i]);
}

__device__ __forceinline__ void round_tile(const Tile& from, Tile& to) {
#pragma unroll
  for (int e = 0; e < 4; ++e) to[e] = tf32(from[e]);
}

/// written [16 columns, 64 positions]: from the right-hand side to the solution, rounded to tf32.
__device__ void solve(const RuleShared& shared, Tile (&written)[kChunk / 8]) {
  const int lane = threadIdx.x % kWarpSize, g = lane / 4, t = lane % 4;
#pragma unroll
  for (int b = 0; b < kBlocks; ++b) {
    const auto system_at = [&](int n, int step) {
      return pair_at(shared.system + (b * kBlock + n * 8 + g) * kStride + step * 8 + 2 * t);
    };
#pragma unroll
    for (int step = 0; step < 2 * b; ++step)
#pragma unroll
      for (int n = 0; n < 2; ++n) {
        const float2 factors = system_at(n, step);
        multiply(written[2 * b + n], written[step], factors.x, factors.y);
      }
    Tile right[2], own[2] = {};
#pragma unroll
    for (int n = 0; n < 2; ++n) round_tile(written[2 * b + n], right[n]);
#pragma unroll
    for (int step = 0; step < 2; ++step)
#pragma unroll
      for (int n = 0; n < 2; ++n) {
        const float2 factors = system_at(n, 2 * b + step);
        multiply(own[n], right[step], factors.x, factors.y);
      }
#pragma unroll
    for (int n = 0; n < 2; ++n) round_tile(own[n], written[2 * b + n]);
  }
}

/// A warp's 16 columns of a head's state.
struct State {
  Tile tiles[kDim / 8];  // [16 columns, 8 elements of a key]

  /// Calls f(element, place in the state [key_dim, value_dim]) for what there is of the lane's.
  template <class F>
  __device__ void each(const DeltaPlaces& places, int32_t first_column, const F& f) {
    const int lane = threadIdx.x % kWarpSize, g = lane / 4, t = lane % 4;
#pragma unroll
    for (int n = 0; n < kDim / 8; ++n)
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const int row = n * 8 + 2 * t + e % 2, column = first_column + e / 2 * 8 + g;
        if (row < places.key_dim && column < places.value_dim)
          f(tiles[n][e], row * places.value_dim + column);
      }
  }
  __device__ void load(const DeltaPlaces& places, int32_t first_column, const float* from) {
#pragma unroll
    for (Tile& tile : tiles) tile[0] = tile[1] = tile[2] = tile[3] = 0;
    if (from) each(places, first_column, [&](float& v, int32_t at) { v = from[at]; });
  }
  __device__ void store(const DeltaPlaces& places, int32_t first_column, float* to) {
    each(places, first_column, [&](const float& v, int32_t at) { to[at] = v; });
  }
};

/// A chunk's share of one warp. `column`: the first of its 16.
template <class T>
struct Columns {
  const RuleParams& params;
  const RuleShared& shared;
  int32_t head, column;
  int64_t token;
  int32_t count;

  /// Words of two columns 2t, 2t + 1 of position 8n + g; half h of the 16.
  __device__ int64_t word_at(int n, int h, int64_t row_width) const {
    const int lane = threadIdx.x % kWarpSize;
    return (token + n * 8 + lane / 4) * row_width + head * params.places.value_dim + column + h * 8 +
           2 * (lane % 4);
  }
  __device__ bool has(int n, int h) const {
    const int lane = threadIdx.x % kWarpSize;
    return n * 8 + lane / 4 < count && column + h * 8 < params.places.value_dim;
  }
  __device__ void load_values(uint32_t (&values)[kChunk / 8][2]) const {
    const T* const from = static_cast<const T*>(params.qkv) + 2 * params.places.keys;
#pragma unroll
    for (int n = 0; n < kChunk / 8; ++n)
#pragma unroll
      for (int h = 0; h < 2; ++h)
        values[n][h] =
            has(n, h) ? *reinterpret_cast<const uint32_t*>(from + word_at(n, h, params.places.channels)) : 0;
  }
  __device__ void store(const Tile (&sums)[kChunk / 8]) const {
    T* const to = static_cast<T*>(params.out);
    const int64_t width = int64_t{params.places.num_value_heads} * params.places.value_dim;
#pragma unroll
    for (int n = 0; n < kChunk / 8; ++n)
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        const uint32_t word = transposed_8x8(pack_floats<T>(sums[n][2 * h], sums[n][2 * h + 1]));
        if (has(n, h)) *reinterpret_cast<uint32_t*>(to + word_at(n, h, width)) = word;
      }
  }
  /// What keys and queries read of the state.
  __device__ void read(const State& state, Tile (&of_keys)[kChunk / 8],
                       Tile (&of_queries)[kChunk / 8]) const {
    const int lane = threadIdx.x % kWarpSize, g = lane / 4, t = lane % 4;
#pragma unroll
    for (int n = 0; n < kChunk / 8; ++n)
#pragma unroll
      for (int e = 0; e < 4; ++e) of_keys[n][e] = of_queries[n][e] = 0;
#pragma unroll
    for (int step = 0; step < kDim / 8; ++step) {
      Tile a;
      round_tile(state.tiles[step], a);
#pragma unroll
      for (int n = 0; n < kChunk / 8; ++n) {
        const int at = key_at(n * 8 + g, step * 8 + 2 * t);
        const float2 k = pair_at(shared.keys + at), q = pair_at(shared.queries + at);
        multiply(of_keys[n], a, k.x, k.y);
        multiply(of_queries[n], a, q.x, q.y);
      }
    }
  }
  /// The system's right-hand side, into `of_keys`.
  __device__ void right_side(const uint32_t (&values)[kChunk / 8][2], Tile (&of_keys)[kChunk / 8]) const {
    const int t = threadIdx.x % 4;
#pragma unroll
    for (int n = 0; n < kChunk / 8; ++n) {
      const float2 decay = pair_at(shared.from_begin + n * 8 + 2 * t),
                   beta = pair_at(shared.betas + n * 8 + 2 * t);
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        const float2 v = unpack_floats<T>(transposed_8x8(values[n][h]));
        of_keys[n][2 * h] = beta.x * fmaf(-decay.x, of_keys[n][2 * h], v.x);
        of_keys[n][2 * h + 1] = beta.y * fmaf(-decay.y, of_keys[n][2 * h + 1], v.y);
      }
    }
  }
  __device__ void add_own(const Tile (&written)[kChunk / 8], Tile (&sums)[kChunk / 8]) const {
    const int lane = threadIdx.x % kWarpSize, g = lane / 4, t = lane % 4;
#pragma unroll
    for (int n = 0; n < kChunk / 8; ++n) {
      const float2 decay = pair_at(shared.from_begin + n * 8 + 2 * t);
      sums[n][0] *= decay.x, sums[n][1] *= decay.y, sums[n][2] *= decay.x, sums[n][3] *= decay.y;
#pragma unroll
      for (int step = 0; step <= n; ++step) {
        const float2 weights = pair_at(shared.weights + (n * 8 + g) * kStride + step * 8 + 2 * t);
        multiply(sums[n], written[step], weights.x, weights.y);
      }
    }
  }
  __device__ void write(const Tile (&written)[kChunk / 8], State& state) const {
    const int lane = threadIdx.x % kWarpSize, g = lane / 4, t = lane % 4;
    const float all = shared.from_begin[kChunk - 1];
#pragma unroll
    for (Tile& tile : state.tiles)
#pragma unroll
      for (float& v : tile) v *= all;
#pragma unroll
    for (int step = 0; step < kChunk / 8; ++step) {
      const int position = step * 8 + 2 * t;
      const float2 left = pair_at(shared.to_end + position);
      const Tile a = {tf32(written[step][0] * left.x), tf32(written[step][1] * left.y),
                      tf32(written[step][2] * left.x), tf32(written[step][3] * left.y)};
#pragma unroll
      for (int n = 0; n < kDim / 8; ++n)
        multiply(state.tiles[n], a, shared.keys[key_at(position, n * 8 + g)],
                 shared.keys[key_at(position + 1, n * 8 + g)]);
    }
  }
};

template <class T>
__global__ void __launch_bounds__(kThreads, 2) delta_rule_kernel(const __grid_constant__ RuleParams params) {
  extern __shared__ __align__(16) uint8_t shared_bytes[];
  auto& shared = *reinterpret_cast<RuleShared*>(shared_bytes);
  dependency_wait();
  dependents_launch();
  const DeltaPlaces& places = params.places;
  const int warp = threadIdx.x / kWarpSize;
  const int32_t splits = ceil_div(places.value_dim, kColumns);
  const int32_t head = static_cast<int32_t>(blockIdx.x) / splits, sequence = static_cast<int32_t>(blockIdx.y);
  const int32_t column = static_cast<int32_t>(blockIdx.x) % splits * kColumns + warp * 16;
  const DeltaSequences::Span span = params.sequences.span(sequence);
  const auto memory = [&](int32_t slot) {
    return params.memory +
           (static_cast<int64_t>(slot) * places.num_value_heads + head) * places.key_dim * places.value_dim;
  };
  State state;
  state.load(places, column, span.start > 0 ? memory(span.slot) : nullptr);
  for (int32_t token = span.begin; token < span.end; token += kChunk) {
    const int32_t count = min(kChunk, span.end - token);
    const Columns<T> columns{params, shared, head, column, token, count};
    uint32_t values[kChunk / 8][2];
    columns.load_values(values);
    load_keys<T>(params, shared, head, token, count);
    if (warp == 0) load_gates(params, shared, head, token, count);
    ask_for<T>(params, head, column - warp * 16, token + kChunk, span.end);
    __syncthreads();
    multiply_positions<true>(shared, warp);
    multiply_positions<false>(shared, kWarps - 1 - warp);
    __syncthreads();
    if (threadIdx.x < kChunk) invert_blocks(shared);
    Tile written[kChunk / 8], sums[kChunk / 8];
    columns.read(state, written, sums);
    columns.right_side(values, written);
    __syncthreads();
    solve(shared, written);
    columns.add_own(written, sums);
    columns.store(sums);
    columns.write(written, state);
    const int32_t position = span.start + (token - span.begin) + count;
    params.sequences.each_save(sequence, [&](int32_t wanted, int32_t slot) {
      if (wanted == position) state.store(places, column, memory(slot));
    });
    __syncthreads();  // before the next chunk's keys
  }
  state.store(places, column, memory(span.slot));
}

}  // namespace

// ---------------------------------------------------------------- launchers

void launch_delta_chunks(DType dtype, const DevicePlan& plan, const DeltaRuleArgs& args,
                         cudaStream_t stream) {
  if (plan.num_prefill_seqs == 0) return;
  const RuleParams params{.sequences = DeltaSequences(plan),
                          .places = DeltaPlaces(args.state.shape),
                          .qkv = args.qkv.data,
                          .gates = static_cast<const float*>(args.gates.data),
                          .memory = static_cast<float*>(args.state.memory.data),
                          .out = args.out.data};
  const int32_t splits = ceil_div(params.places.value_dim, kColumns);
  const dim3 grid(static_cast<unsigned>(params.places.num_value_heads * splits),
                  static_cast<unsigned>(plan.num_prefill_seqs));
  with_element(dtype, [&]<class T>(T) {
    constexpr auto* kernel = delta_rule_kernel<T>;
    CUDA_CHECK(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, sizeof(RuleShared)));
    launch_dependent(kernel, grid, kThreads, sizeof(RuleShared), stream, params);
  });
}

void launch_delta_rule(DType dtype, const DevicePlan& plan, const DeltaRuleArgs& args, cudaStream_t stream) {
  check_delta_shape(args.state.shape);
  launch_delta_chunks(dtype, plan, args, stream);
  launch_delta_steps(dtype, plan, args, stream);
}

}  // namespace moerun
