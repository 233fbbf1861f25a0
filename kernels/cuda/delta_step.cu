// The recurrent step of the gated delta rule, for sequences that decode. A block has half of the columns of
// one head's state, each thread eight of its rows for four columns: the state is read once and written once,
// all its loads are under way at the same time, and there are four blocks on a multiprocessor.
#include "kernels/cuda/delta_net.cuh"
#include "kernels/cuda/delta_net.h"
#include "kernels/cuda/hopper.cuh"

namespace moerun {
namespace {

using namespace cuda;

constexpr int kThreads = 256, kColumns = kMaxDeltaDim / 2;
constexpr int kLanes = kColumns / 4, kGroups = kThreads / kLanes;  // of threads that have the same rows
constexpr int kRows = kMaxDeltaDim / kGroups;
static_assert(kMaxDeltaDim == 4 * kWarpSize);

struct StepParams {
  DeltaSequences sequences;
  DeltaPlaces places;
  const void* qkv;
  const float* gates;
  float* memory;
  void* out;
};

struct StepShared {
  alignas(16) float keys[kMaxDeltaDim], queries[kMaxDeltaDim];
  alignas(16) float of_keys[kGroups][kColumns], of_queries[kGroups][kColumns];
  float product;  // of query and key
};

// ---------------------------------------------------------------- kernels

template <class T>
__device__ float4 load4(const T* from) {
  const uint2 bits = *reinterpret_cast<const uint2*>(from);
  const float2 low = unpack_floats<T>(bits.x), high = unpack_floats<T>(bits.y);
  return make_float4(low.x, low.y, high.x, high.y);
}
__device__ float dot(const float4& a, const float4& b) {
  return fmaf(a.w, b.w, fmaf(a.z, b.z, fmaf(a.y, b.y, a.x * b.x)));
}
__device__ void scale(float4& v, float by) { v.x *= by, v.y *= by, v.z *= by, v.w *= by; }
/// sum += by · v
__device__ void add_scaled(float4& sum, float by, const float4& v) {
  sum.x = fmaf(by, v.x, sum.x), sum.y = fmaf(by, v.y, sum.y);
  sum.z = fmaf(by, v.z, sum.z), sum.w = fmaf(by, v.w, sum.w);
}

/// The groups' parts, ascending.
__device__ float4 sum_of(const float (&parts)[kGroups][kColumns], int lane) {
  float4 sum{};
#pragma unroll
  for (int g = 0; g < kGroups; ++g) add_scaled(sum, 1, reinterpret_cast<const float4*>(parts[g])[lane]);
  return sum;
}

/// By one warp: query and key of length 1, the query divided by √key_dim, to shared memory.
template <class T>
__device__ void load_keys(const DeltaPlaces& places, const T* row, int32_t head, StepShared& shared) {
  const int lane = threadIdx.x % kWarpSize;
  float4 q{}, k{};
  if (4 * lane < places.key_dim) {
    q = load4(row + head / places.group * places.key_dim + 4 * lane);
    k = load4(row + places.keys + head / places.group * places.key_dim + 4 * lane);
  }
  scale(q, to_length_one(warp_sum(dot(q, q))) / sqrtf(static_cast<float>(places.key_dim)));
  scale(k, to_length_one(warp_sum(dot(k, k))));
  const float product = warp_sum(dot(q, k));
  reinterpret_cast<float4*>(shared.queries)[lane] = q;
  reinterpret_cast<float4*>(shared.keys)[lane] = k;
  if (lane == 0) shared.product = product;
}

/// kWhole: keys and values of kMaxDeltaDim elements.
template <class T, bool kWhole>
__global__ void __launch_bounds__(kThreads, 4) delta_step_kernel(const __grid_constant__ StepParams params) {
  __shared__ StepShared shared;
  dependency_wait();
  dependents_launch();
  const DeltaPlaces& places = params.places;
  const int lane = threadIdx.x % kLanes, group = threadIdx.x / kLanes;
  const auto head = static_cast<int32_t>(blockIdx.x / 2);
  const int column = static_cast<int>(blockIdx.x % 2) * kColumns + 4 * lane;
  const DeltaSequences::Span span =
      params.sequences.span(params.sequences.num_prefill_seqs + static_cast<int32_t>(blockIdx.y));
  const int32_t key_dim = kWhole ? kMaxDeltaDim : places.key_dim;
  const int32_t value_dim = kWhole ? kMaxDeltaDim : places.value_dim;
  const bool mine = kWhole || column < value_dim;
  float* const memory =
      params.memory +
      ((static_cast<int64_t>(span.slot) * places.num_value_heads + head) * key_dim + group * kRows) *
          value_dim +
      column;
  float4 state[kRows];
#pragma unroll
  for (int i = 0; i < kRows; ++i) {
    const int row = group * kRows + i;
    state[i] = float4{};
    if (mine && (kWhole || row < key_dim) && span.start > 0)
      state[i] = __ldcs(reinterpret_cast<const float4*>(memory + i * value_dim));
  }
  const int64_t token = span.begin;
  const T* const row = static_cast<const T*>(params.qkv) + token * places.channels;
  if (threadIdx.x < kWarpSize) load_keys(places, row, head, shared);
  const float* const gates = params.gates + token * 2 * places.num_value_heads + head;
  const float decay = expf(gates[0]), beta = gates[places.num_value_heads];
  float4 value{};
  if (mine) value = load4(row + 2 * places.keys + head * value_dim + column);
  __syncthreads();

  float4 of_keys{}, of_queries{};
#pragma unroll
  for (int i = 0; i < kRows; ++i) {
    scale(state[i], decay);
    add_scaled(of_keys, shared.keys[group * kRows + i], state[i]);
    add_scaled(of_queries, shared.queries[group * kRows + i], state[i]);
  }
  reinterpret_cast<float4*>(shared.of_keys[group])[lane] = of_keys;
  reinterpret_cast<float4*>(shared.of_queries[group])[lane] = of_queries;
  __syncthreads();
  float4 written = value;
  add_scaled(written, -1, sum_of(shared.of_keys, lane));
  scale(written, beta);
#pragma unroll
  for (int i = 0; i < kRows; ++i) {
    const int at = group * kRows + i;
    add_scaled(state[i], shared.keys[at], written);
    if (mine && (kWhole || at < key_dim)) __stcs(reinterpret_cast<float4*>(memory + i * value_dim), state[i]);
  }
  if (group > 0 || !mine) return;
  float4 out = sum_of(shared.of_queries, lane);
  add_scaled(out, shared.product, written);  // the query's product with what was written
  *reinterpret_cast<uint2*>(static_cast<T*>(params.out) +
                            (token * places.num_value_heads + head) * value_dim + column) =
      make_uint2(pack_floats<T>(out.x, out.y), pack_floats<T>(out.z, out.w));
}

}  // namespace

// ---------------------------------------------------------------- launchers

void launch_delta_steps(DType dtype, const DevicePlan& plan, const DeltaRuleArgs& args, cudaStream_t stream) {
  const int32_t num_seqs = plan.num_seqs - plan.num_prefill_seqs;
  if (num_seqs == 0) return;
  const StepParams params{.sequences = DeltaSequences(plan),
                          .places = DeltaPlaces(args.state.shape),
                          .qkv = args.qkv.data,
                          .gates = static_cast<const float*>(args.gates.data),
                          .memory = static_cast<float*>(args.state.memory.data),
                          .out = args.out.data};
  const dim3 grid(static_cast<unsigned>(2 * params.places.num_value_heads), static_cast<unsigned>(num_seqs));
  const bool whole = params.places.key_dim == kMaxDeltaDim && params.places.value_dim == kMaxDeltaDim;
  with_element(dtype, [&]<class T>(T) {
    const auto kernel = whole ? delta_step_kernel<T, true> : delta_step_kernel<T, false>;
    launch_dependent(kernel, grid, kThreads, 0, stream, params);
  });
}

}  // namespace moerun
