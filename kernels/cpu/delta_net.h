#pragma once
#include <cstdint>

#include "moerun/delta_net.h"

namespace moerun::cpu {

/// A step's sequences, those that prefill first, and where their states are.
struct DeltaPlan {
  const int32_t *cu_seqlens = nullptr, *context_lens = nullptr, *slots = nullptr;  ///< [s + 1], [s], [s]
  int64_t num_seqs = 0, num_prefill_seqs = 0;
  const int32_t* saves = nullptr;  ///< [sequence, position, slot]…
  int64_t num_saves = 0;
};

struct DeltaConvArgs {
  DeltaShape shape;
  const float *qkvz = nullptr, *ba = nullptr;        ///< [n, shape.width()], [n, 2·value heads]
  const float* weight = nullptr;                     ///< [channels, conv_width]
  const float *a_log = nullptr, *dt_bias = nullptr;  ///< [value heads]
  float* state = nullptr;                            ///< [slots, conv_width − 1, channels]
  float* qkv = nullptr;                              ///< [n, channels] out
  float* gates = nullptr;                            ///< [n, 2·value heads] out: log decays, then betas
};

/// silu of the causal convolution, and the gates (Device::delta_conv).
void delta_conv(const DeltaPlan& plan, const DeltaConvArgs& args);

struct DeltaRuleArgs {
  DeltaShape shape;
  const float *qkv = nullptr, *gates = nullptr;
  float* state = nullptr;  ///< [slots, value heads, key_dim, value_dim]
  float* out = nullptr;    ///< [n, value heads·value_dim]
};

/// The gated delta rule (Device::delta_rule): by chunks where a sequence prefills, else one recurrent step.
void delta_rule(const DeltaPlan& plan, const DeltaRuleArgs& args);

struct DeltaNormArgs {
  DeltaShape shape;
  float* x = nullptr;           ///< [n, value heads·value_dim] in and out
  const float* qkvz = nullptr;  ///< [n, shape.width()]
  const float* weight = nullptr;
  int64_t n = 0;
  float eps = 0;
};

/// RMSNorm of each head, times weight and silu of its z.
void delta_norm(const DeltaNormArgs& args);

/// heads [n, heads·head_dim] times the sigmoids of the gates in qkv [n, width], each behind its query head.
void gate_heads(const float* qkv, int64_t width, int64_t n, int64_t num_heads, int64_t head_dim,
                float* heads);

}  // namespace moerun::cpu
