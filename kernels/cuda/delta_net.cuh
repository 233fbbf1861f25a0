#pragma once
// What the kernels of gated delta nets share: where a step's sequences and their states are, and where the
// projection's columns are.
#include "kernels/cuda/common.cuh"
#include "kernels/cuda/limits.h"
#include "moerun/device.h"

namespace moerun::cuda {

constexpr int kMaxDeltaDim = limits::kMaxDeltaDim;

/// A step's sequences. `saves` are [sequence, position, slot]… and end with a sequence of −1, so that
/// recorded graphs need not know how many there are.
struct DeltaSequences {
  const int32_t *cu_seqlens, *context_lens, *slots, *saves;
  int32_t num_seqs, num_prefill_seqs;

  explicit DeltaSequences(const DevicePlan& plan)
      : cu_seqlens(plan.cu_seqlens_q.data),
        context_lens(plan.context_lens.data),
        slots(plan.state_slots.data),
        saves(plan.state_saves.data),
        num_seqs(plan.num_seqs),
        num_prefill_seqs(plan.num_prefill_seqs) {}

  /// Tokens [begin, end), the first of which is at position `start`.
  struct Span {
    int32_t begin, end, start, slot;
  };
  __device__ Span span(int32_t sequence) const {
    const int32_t begin = cu_seqlens[sequence], end = cu_seqlens[sequence + 1];
    return {begin, end, context_lens[sequence] - (end - begin), slots[sequence]};
  }
  /// The sequence that has a token.
  __device__ int32_t of_token(int32_t token) const {
    int32_t low = 0, high = num_seqs - 1;
    while (low < high) {
      const int32_t middle = (low + high + 1) / 2;
      if (cu_seqlens[middle] <= token)
        low = middle;
      else
        high = middle - 1;
    }
    return low;
  }
  /// Calls `save(position, slot)` for what the plan wants kept of a sequence.
  template <class Save>
  __device__ void each_save(int32_t sequence, const Save& save) const {
    for (const int32_t* at = saves; at[0] >= 0; at += 3)
      if (at[0] == sequence) save(at[1], at[2]);
  }
};

/// DeltaColumns for the device: columns of a head are linear in its key head and its place among the value
/// heads of that.
struct DeltaPlaces {
  int32_t num_key_heads, num_value_heads, group, key_dim, value_dim, keys, channels, width;
  int32_t k0, v0, z0, b0, a0;
  int32_t key_step, value_step, gate_step;  // from a key head to the next

  explicit DeltaPlaces(const DeltaShape& shape)
      : num_key_heads(static_cast<int32_t>(shape.num_key_heads)),
        num_value_heads(static_cast<int32_t>(shape.num_value_heads)),
        group(static_cast<int32_t>(shape.group())),
        key_dim(static_cast<int32_t>(shape.key_dim)),
        value_dim(static_cast<int32_t>(shape.value_dim)),
        keys(static_cast<int32_t>(shape.keys())),
        channels(static_cast<int32_t>(shape.channels())),
        width(static_cast<int32_t>(shape.width())) {
    const DeltaColumns columns(shape);
    const auto at = [](int64_t column) { return static_cast<int32_t>(column); };
    k0 = at(columns.k(0)), v0 = at(columns.v(0)), z0 = at(columns.z(0));
    b0 = at(columns.b(0)), a0 = at(columns.a(0));
    key_step = at(columns.q(1)), value_step = at(columns.v(group)) - v0,
    gate_step = at(columns.b(group)) - b0;
  }

  /// Of the projection, where a channel of the convolution comes from.
  __device__ int32_t column(int32_t channel) const {
    if (channel < 2 * keys) {
      const bool key = channel >= keys;
      const int32_t at = key ? channel - keys : channel;
      return (key ? k0 : 0) + at / key_dim * key_step + at % key_dim;
    }
    const int32_t at = channel - 2 * keys;
    return v0 + of_value_head(at / value_dim) + at % value_dim;
  }
  __device__ int32_t z(int32_t head) const { return z0 + of_value_head(head); }
  __device__ int32_t b(int32_t head) const { return b0 + of_gates(head); }
  __device__ int32_t a(int32_t head) const { return a0 + of_gates(head); }

 private:
  __device__ int32_t of_value_head(int32_t head) const {
    return head / group * value_step + head % group * value_dim;
  }
  __device__ int32_t of_gates(int32_t head) const { return head / group * gate_step + head % group; }
};

__device__ __forceinline__ float sigmoid(float x) { return 1.0F / (1.0F + expf(-x)); }

/// The sum over a warp, the same in each lane.
__device__ __forceinline__ float warp_sum(float value) {
#pragma unroll
  for (int d = kWarpSize / 2; d > 0; d /= 2) value += __shfl_xor_sync(kFullMask, value, d);
  return value;
}

/// What queries and keys are multiplied with to be of length 1, from their sum of squares.
__device__ __forceinline__ float to_length_one(float squares) { return 1.0F / sqrtf(squares + 1e-6F); }

/// Throws Error where the kernels do not take a shape.
inline void check_delta_shape(const DeltaShape& shape) {
  if (shape.key_dim % limits::kVector != 0 || shape.value_dim % limits::kVector != 0 ||
      shape.key_dim > kMaxDeltaDim || shape.value_dim > kMaxDeltaDim)
    throw Error("gated delta nets on the GPU have heads of up to 128 elements, a multiple of 8, not " +
                std::to_string(shape.key_dim) + " and " + std::to_string(shape.value_dim));
  if (shape.conv_width < 2 || shape.conv_width > limits::kMaxConvWidth)
    throw Error("the convolution of gated delta nets on the GPU takes 2 to 4 positions, not " +
                std::to_string(shape.conv_width));
}

}  // namespace moerun::cuda
