// The causal convolution of gated delta nets, and their gates. A thread has eight channels of some
// consecutive tokens of the step, whoever's they are, and keeps what the convolution takes in registers.
// Whoever has a sequence's first token reads its old state and writes the new one: nobody else touches it.
#include "kernels/cuda/delta_net.cuh"
#include "kernels/cuda/delta_net.h"
#include "kernels/cuda/hopper.cuh"

namespace moerun {
namespace {

using namespace cuda;

constexpr int kThreads = 128, kTokens = 16, kVector = limits::kVector;
constexpr int kWidth = limits::kMaxConvWidth, kEarlier = kWidth - 1;

struct ConvParams {
  DeltaSequences sequences;
  DeltaPlaces places;
  const void *qkvz, *ba, *weight;
  const float *a_log, *dt_bias;
  void *state, *qkv;
  float* gates;
  int32_t num_tokens, width;  // width: positions that the convolution takes
};

// ---------------------------------------------------------------- kernels

template <class T>
__device__ void unpack(uint4 bits, float (&v)[kVector]) {
  const uint32_t words[4] = {bits.x, bits.y, bits.z, bits.w};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const float2 pair = unpack_floats<T>(words[i]);
    v[2 * i] = pair.x, v[2 * i + 1] = pair.y;
  }
}

/// A thread's channels.
template <class T>
struct Channels {
  const ConvParams& params;
  int32_t channel, column;

  __device__ uint4 projected(int32_t token) const {
    const int64_t at = static_cast<int64_t>(token) * params.places.width + column;
    return *reinterpret_cast<const uint4*>(static_cast<const T*>(params.qkvz) + at);
  }
  __device__ uint4* state(int32_t slot, int32_t row) const {
    const int64_t at =
        (static_cast<int64_t>(slot) * (params.width - 1) + row) * params.places.channels + channel;
    return reinterpret_cast<uint4*>(static_cast<T*>(params.state) + at);
  }
  /// The input of `token`, which may lie before the step's first; then it is the state's.
  __device__ uint4 input(int32_t token, const DeltaSequences::Span& span) const {
    if (token >= span.begin) return projected(token);
    const int32_t row = params.width - 1 - (span.begin - token);
    if (span.start == 0 || row < 0) return uint4{};
    return *state(span.slot, row);
  }
  /// The inputs before the sequence's token number `count` of the step, `old` are those before its first.
  __device__ void keep(int32_t count, int32_t slot, const uint4 (&old)[kEarlier], int32_t begin) const {
#pragma unroll
    for (int back = 1; back <= kEarlier; ++back) {
      if (back >= params.width) break;
      uint4 row = old[kEarlier - 1];
      if (count >= back)
        row = projected(begin + count - back);
      else
#pragma unroll
        for (int i = 0; i < kEarlier; ++i)
          if (i == kEarlier - (back - count)) row = old[i];
      *state(slot, params.width - 1 - back) = row;
    }
  }
};

/// log decays and σ of the block's tokens.
template <class T>
__device__ void gates_of(const ConvParams& params, int32_t first, int32_t last) {
  const DeltaPlaces& places = params.places;
  const int32_t heads = places.num_value_heads;
  for (int32_t i = threadIdx.x; i < (last - first) * heads; i += kThreads) {
    const int32_t head = i % heads;
    const int64_t token = first + i / heads;
    const T* const ba = static_cast<const T*>(params.ba) + token * 2 * heads;
    const float x = Element<T>::to_float(ba[places.a(head)]) + params.dt_bias[head];
    const float softplus = x > 20.0F ? x : log1pf(expf(x));
    float* const out = params.gates + token * 2 * heads;
    out[head] = -expf(params.a_log[head]) * softplus;
    out[heads + head] = sigmoid(Element<T>::to_float(ba[places.b(head)]));
  }
}

template <class T>
__global__ void __launch_bounds__(kThreads) delta_conv_kernel(const __grid_constant__ ConvParams params) {
  dependency_wait();
  dependents_launch();
  const int32_t first = static_cast<int32_t>(blockIdx.x) * kTokens,
                last = min(first + kTokens, params.num_tokens);
  if (blockIdx.y == gridDim.y - 1) return gates_of<T>(params, first, last);
  const int32_t channel = static_cast<int32_t>(blockIdx.y * kThreads + threadIdx.x) * kVector;
  if (channel >= params.places.channels) return;
  const Channels<T> channels{params, channel, params.places.column(channel)};
  float weight[kWidth][kVector];  // the last is of the position itself
#pragma unroll
  for (int j = 0; j < kWidth; ++j)
#pragma unroll
    for (int e = 0; e < kVector; ++e) {
      const int at = j - (kWidth - params.width);
      weight[j][e] = at < 0 ? 0.0F
                            : Element<T>::to_float(static_cast<const T*>(
                                  params.weight)[static_cast<int64_t>(channel + e) * params.width + at]);
    }
  int32_t sequence = params.sequences.of_token(first);
  DeltaSequences::Span span = params.sequences.span(sequence);
  uint4 window[kEarlier];
#pragma unroll
  for (int i = 0; i < kEarlier; ++i) window[i] = channels.input(first - kEarlier + i, span);
  for (int32_t token = first; token < last; ++token) {
    if (token >= span.end) {
      while (token >= span.end) span = params.sequences.span(++sequence);
#pragma unroll
      for (int i = 0; i < kEarlier; ++i) window[i] = channels.input(token - kEarlier + i, span);
    }
    if (token == span.begin) {
      params.sequences.each_save(sequence, [&](int32_t position, int32_t slot) {
        channels.keep(position - span.start, slot, window, span.begin);
      });
      channels.keep(span.end - span.begin, span.slot, window, span.begin);
    }
    const uint4 own = channels.projected(token);
    float sum[kVector] = {}, v[kVector];
#pragma unroll
    for (int j = 0; j < kWidth; ++j) {
      unpack<T>(j < kEarlier ? window[j] : own, v);
#pragma unroll
      for (int e = 0; e < kVector; ++e) sum[e] = fmaf(weight[j][e], v[e], sum[e]);
    }
#pragma unroll
    for (int e = 0; e < kVector; ++e) sum[e] *= sigmoid(sum[e]);
    *reinterpret_cast<uint4*>(static_cast<T*>(params.qkv) +
                              static_cast<int64_t>(token) * params.places.channels + channel) =
        make_uint4(pack_floats<T>(sum[0], sum[1]), pack_floats<T>(sum[2], sum[3]),
                   pack_floats<T>(sum[4], sum[5]), pack_floats<T>(sum[6], sum[7]));
#pragma unroll
    for (int i = 0; i + 1 < kEarlier; ++i) window[i] = window[i + 1];
    window[kEarlier - 1] = own;
  }
}

}  // namespace

// ---------------------------------------------------------------- launchers

void launch_delta_conv(DType dtype, const DevicePlan& plan, const DeltaConvArgs& args, cudaStream_t stream) {
  if (plan.num_tokens == 0) return;
  const DeltaShape& shape = args.state.shape;
  check_delta_shape(shape);
  const ConvParams params{.sequences = DeltaSequences(plan),
                          .places = DeltaPlaces(shape),
                          .qkvz = args.qkvz.data,
                          .ba = args.ba.data,
                          .weight = args.weight.data,
                          .a_log = static_cast<const float*>(args.a_log.data),
                          .dt_bias = static_cast<const float*>(args.dt_bias.data),
                          .state = args.state.conv.data,
                          .qkv = args.qkv.data,
                          .gates = static_cast<float*>(args.gates.data),
                          .num_tokens = plan.num_tokens,
                          .width = static_cast<int32_t>(shape.conv_width)};
  const dim3 grid(static_cast<unsigned>(ceil_div(plan.num_tokens, kTokens)),
                  static_cast<unsigned>(ceil_div<int64_t>(shape.channels(), kVector * kThreads) + 1));
  with_element(
      dtype, [&]<class T>(T) { launch_dependent(delta_conv_kernel<T>, grid, kThreads, 0, stream, params); });
}

}  // namespace moerun
