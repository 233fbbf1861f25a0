// What follows a gated delta net and gated attention: the norm of each head times silu of its gate, and heads
// times the sigmoids of their gates.
#include "kernels/cuda/delta_net.cuh"
#include "kernels/cuda/delta_net.h"
#include "kernels/cuda/hopper.cuh"

namespace moerun {
namespace {

using namespace cuda;

constexpr int kThreads = 256, kWarps = kThreads / kWarpSize;

struct NormParams {
  DeltaPlaces places;
  void* x;
  const void *qkvz, *weight;
  int64_t heads;  // of all tokens
  float eps;
};

struct GateParams {
  const void* qkv;
  void* heads;
  int64_t pairs, width;  // pairs of elements; width: of a row of qkv
  int32_t num_heads, head_dim;
};

// ---------------------------------------------------------------- kernels

template <class T>
__device__ void load4(const T* from, float (&v)[4]) {
  const uint2 bits = *reinterpret_cast<const uint2*>(from);
  const float2 low = unpack_floats<T>(bits.x), high = unpack_floats<T>(bits.y);
  v[0] = low.x, v[1] = low.y, v[2] = high.x, v[3] = high.y;
}

/// A warp a head. A lane sums the squares of its four elements, ascending; then a butterfly over lanes.
template <class T>
__global__ void __launch_bounds__(kThreads) delta_norm_kernel(const __grid_constant__ NormParams params) {
  dependency_wait();
  dependents_launch();
  const DeltaPlaces& places = params.places;
  const int lane = threadIdx.x % kWarpSize;
  const int64_t at = static_cast<int64_t>(blockIdx.x) * kWarps + threadIdx.x / kWarpSize;
  if (at >= params.heads) return;
  const int64_t token = at / places.num_value_heads;
  const auto head = static_cast<int32_t>(at % places.num_value_heads);
  const bool mine = 4 * lane < places.value_dim;
  T* const x = static_cast<T*>(params.x) + at * places.value_dim + 4 * lane;
  float v[4] = {}, z[4] = {}, weight[4] = {};
  if (mine) {
    load4(x, v);
    load4(static_cast<const T*>(params.qkvz) + token * places.width + places.z(head) + 4 * lane, z);
    load4(static_cast<const T*>(params.weight) + 4 * lane, weight);
  }
  float squares = 0;
#pragma unroll
  for (const float e : v) squares = fmaf(e, e, squares);
  const float scale = 1.0F / sqrtf(warp_sum(squares) / static_cast<float>(places.value_dim) + params.eps);
#pragma unroll
  for (int e = 0; e < 4; ++e) v[e] = v[e] * scale * weight[e] * (z[e] * sigmoid(z[e]));
  if (mine) *reinterpret_cast<uint2*>(x) = make_uint2(pack_floats<T>(v[0], v[1]), pack_floats<T>(v[2], v[3]));
}

template <class T>
__global__ void __launch_bounds__(kThreads) gate_heads_kernel(const __grid_constant__ GateParams params) {
  dependency_wait();
  dependents_launch();
  const int64_t pair = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (pair >= params.pairs) return;
  const int32_t pairs_a_head = params.head_dim / 2;
  const int64_t head = pair / pairs_a_head, token = head / params.num_heads;
  const int64_t in_head = pair % pairs_a_head * 2;
  const int64_t gate_at =
      token * params.width + (head % params.num_heads * 2 + 1) * params.head_dim + in_head;
  const float2 gate =
      unpack_floats<T>(*reinterpret_cast<const uint32_t*>(static_cast<const T*>(params.qkv) + gate_at));
  uint32_t* const to = static_cast<uint32_t*>(params.heads) + pair;
  const float2 v = unpack_floats<T>(*to);
  *to = pack_floats<T>(v.x * sigmoid(gate.x), v.y * sigmoid(gate.y));
}

}  // namespace

// ---------------------------------------------------------------- launchers

void launch_delta_norm(DType dtype, const DeltaNormArgs& args, cudaStream_t stream) {
  if (args.x.rows == 0) return;
  check_delta_shape(args.shape);
  const NormParams params{.places = DeltaPlaces(args.shape),
                          .x = args.x.data,
                          .qkvz = args.qkvz.data,
                          .weight = args.weight.data,
                          .heads = args.x.rows * args.shape.num_value_heads,
                          .eps = args.eps};
  const auto grid = static_cast<unsigned>(ceil_div<int64_t>(params.heads, kWarps));
  with_element(
      dtype, [&]<class T>(T) { launch_dependent(delta_norm_kernel<T>, grid, kThreads, 0, stream, params); });
}

void launch_gate_heads(DType dtype, const GateHeadsArgs& args, cudaStream_t stream) {
  if (args.heads.rows == 0) return;
  const GateParams params{.qkv = args.qkv.data,
                          .heads = args.heads.data,
                          .pairs = args.heads.rows * args.heads.cols / 2,
                          .width = args.qkv.cols,
                          .num_heads = static_cast<int32_t>(args.heads.cols / args.head_dim),
                          .head_dim = args.head_dim};
  const auto grid = static_cast<unsigned>(ceil_div<int64_t>(params.pairs, kThreads));
  with_element(
      dtype, [&]<class T>(T) { launch_dependent(gate_heads_kernel<T>, grid, kThreads, 0, stream, params); });
}

}  // namespace moerun
