#include "kernels/cpu/delta_net.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/cpu/simd.h"

namespace moerun::cpu {

namespace {

/// A sequence's part of the step: tokens [begin, end), the first of which is at position `start`.
struct Span {
  int64_t begin = 0, end = 0, start = 0, slot = 0;
  int64_t count() const { return end - begin; }
};

Span span_of(const DeltaPlan& plan, int64_t seq) {
  const int64_t begin = plan.cu_seqlens[seq], end = plan.cu_seqlens[seq + 1];
  return {begin, end, plan.context_lens[seq] - (end - begin), plan.slots[seq]};
}

/// Calls `save(position, slot)` for what the plan wants kept of a sequence.
template <typename Save>
void each_save(const DeltaPlan& plan, int64_t seq, const Save& save) {
  for (int64_t i = 0; i < plan.num_saves; ++i)
    if (plan.saves[3 * i] == seq) save(int64_t{plan.saves[3 * i + 1]}, int64_t{plan.saves[3 * i + 2]});
}

/// Queries, keys and values of a projected row, as the convolution has them.
void gather_channels(const DeltaShape& shape, const float* row, float* out) {
  const DeltaColumns columns(shape);
  for (int64_t head = 0; head < shape.num_key_heads; ++head) {
    std::copy_n(row + columns.q(head), shape.key_dim, out + head * shape.key_dim);
    std::copy_n(row + columns.k(head), shape.key_dim, out + shape.keys() + head * shape.key_dim);
  }
  for (int64_t head = 0; head < shape.num_value_heads; ++head)
    std::copy_n(row + columns.v(head), shape.value_dim, out + 2 * shape.keys() + head * shape.value_dim);
}

/// One position: `rows` [conv_width, channels] end with it.
MOERUN_CLONES void convolve(const float* rows, const float* weight, int64_t channels, int64_t width,
                            float* out) {
  for (int64_t c = 0; c < channels; ++c) {
    float sum = 0;
    for (int64_t j = 0; j < width; ++j)
      sum = __builtin_fmaf(weight[c * width + j], rows[j * channels + c], sum);
    out[c] = silu(sum);
  }
}

float softplus(float x) { return x > 20.0F ? x : std::log1p(std::exp(x)); }

void gates_of(const DeltaConvArgs& args, int64_t token) {
  const int64_t heads = args.shape.num_value_heads;
  const DeltaColumns columns(args.shape);
  const float* const ba = args.ba + token * 2 * heads;
  float* const gates = args.gates + token * 2 * heads;
  for (int64_t head = 0; head < heads; ++head) {
    gates[head] = -std::exp(args.a_log[head]) * softplus(ba[columns.a(head)] + args.dt_bias[head]);
    gates[heads + head] = 1.0F / (1.0F + std::exp(-ba[columns.b(head)]));
  }
}

/// Room for one head of a chunk.
struct Scratch {
  explicit Scratch(const DeltaShape& shape)
      : q(static_cast<size_t>(kDeltaChunk * shape.key_dim)),
        k(q.size()),
        values(static_cast<size_t>(kDeltaChunk * shape.value_dim)),
        decays(kDeltaChunk) {}
  std::vector<float> q, k;    // [chunk, key_dim] of length 1, queries divided by √key_dim
  std::vector<float> values;  // [chunk, value_dim] what is written to the state
  std::vector<float> decays;  // [chunk] logs, summed from the chunk's begin
};

/// What one head's rule works on.
struct Head {
  const DeltaRuleArgs* args = nullptr;
  int64_t index = 0;       ///< of the value head
  float* state = nullptr;  ///< [key_dim, value_dim]

  const DeltaShape& shape() const { return args->shape; }
  const float* row(int64_t token) const { return args->qkv + token * shape().channels(); }
  const float* q(int64_t token) const { return row(token) + index / shape().group() * shape().key_dim; }
  const float* k(int64_t token) const { return q(token) + shape().keys(); }
  const float* v(int64_t token) const { return row(token) + 2 * shape().keys() + index * shape().value_dim; }
  float log_decay(int64_t token) const { return args->gates[token * 2 * shape().num_value_heads + index]; }
  float beta(int64_t token) const { return args->gates[(token * 2 + 1) * shape().num_value_heads + index]; }
  float* out(int64_t token) const { return args->out + token * shape().values() + index * shape().value_dim; }
};

MOERUN_INLINE void to_length_one(const float* x, int64_t n, float scale, float* out) {
  const float inverse = 1.0F / std::sqrt(dot16(x, x, n) + 1e-6F);
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) out[i] = x[i] * inverse * scale;
}

/// out += factor · row
MOERUN_INLINE void add_scaled(float factor, const float* row, int64_t n, float* out) {
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) out[i] = __builtin_fmaf(factor, row[i], out[i]);
}

/// out = x · state, rows of the state ascending.
MOERUN_INLINE void read_state(const float* x, const float* state, int64_t key_dim, int64_t value_dim,
                              float* out) {
  for (int64_t i = 0; i < value_dim; ++i) out[i] = 0;
  for (int64_t d = 0; d < key_dim; ++d) add_scaled(x[d], state + d * value_dim, value_dim, out);
}

MOERUN_INLINE void load_keys(const Head& head, int64_t token, float* q, float* k) {
  const int64_t key_dim = head.shape().key_dim;
  to_length_one(head.q(token), key_dim, 1.0F / std::sqrt(static_cast<float>(key_dim)), q);
  to_length_one(head.k(token), key_dim, 1.0F, k);
}

/// Tokens [begin, begin + count) of a head, count ≤ kDeltaChunk. What position i writes, u_i, solves
///   u_i = β_i (v_i − e^{c_i} k_i·S) − Σ_{j<i} β_i e^{c_i − c_j} (k_i·k_j) u_j,   c the summed log decays,
/// and its output is e^{c_i} q_i·S + Σ_{j≤i} e^{c_i − c_j} (q_i·k_j) u_j. Then S = e^{c_last} S + Σ e^{c_last
/// − c_j} k_j u_jᵀ.
MOERUN_CLONES void chunk_rule(const Head& head, int64_t begin, int64_t count, Scratch& scratch) {
  const int64_t key_dim = head.shape().key_dim, value_dim = head.shape().value_dim;
  float* const decays = scratch.decays.data();
  float sum = 0;
  for (int64_t i = 0; i < count; ++i) {
    load_keys(head, begin + i, scratch.q.data() + i * key_dim, scratch.k.data() + i * key_dim);
    decays[i] = sum += head.log_decay(begin + i);
  }
  for (int64_t i = 0; i < count; ++i) {
    const float* const q = scratch.q.data() + i * key_dim;
    const float* const k = scratch.k.data() + i * key_dim;
    const float* const v = head.v(begin + i);
    const float beta = head.beta(begin + i), decay = exp_f32(decays[i]);
    float* const written = scratch.values.data() + i * value_dim;
    read_state(k, head.state, key_dim, value_dim, written);
#pragma omp simd
    for (int64_t d = 0; d < value_dim; ++d) written[d] = beta * (v[d] - decay * written[d]);
    float* const out = head.out(begin + i);
    read_state(q, head.state, key_dim, value_dim, out);
#pragma omp simd
    for (int64_t d = 0; d < value_dim; ++d) out[d] *= decay;
    for (int64_t j = 0; j <= i; ++j) {
      const float* const other = scratch.k.data() + j * key_dim;
      const float* const earlier = scratch.values.data() + j * value_dim;
      const float between = exp_f32(decays[i] - decays[j]);
      if (j < i) add_scaled(-beta * between * dot16(k, other, key_dim), earlier, value_dim, written);
      add_scaled(between * dot16(q, other, key_dim), earlier, value_dim, out);
    }
  }
  const float last = decays[count - 1], all = exp_f32(last);
  for (int64_t d = 0; d < key_dim; ++d) {
    float* const row = head.state + d * value_dim;
#pragma omp simd
    for (int64_t i = 0; i < value_dim; ++i) row[i] *= all;
    for (int64_t j = 0; j < count; ++j)
      add_scaled(exp_f32(last - decays[j]) * scratch.k[static_cast<size_t>(j * key_dim + d)],
                 scratch.values.data() + j * value_dim, value_dim, row);
  }
}

/// One token of a head.
MOERUN_CLONES void recurrent_rule(const Head& head, int64_t token, Scratch& scratch) {
  const int64_t key_dim = head.shape().key_dim, value_dim = head.shape().value_dim;
  float *const q = scratch.q.data(), *const k = scratch.k.data(), *const written = scratch.values.data();
  load_keys(head, token, q, k);
  const float decay = exp_f32(head.log_decay(token)), beta = head.beta(token);
#pragma omp simd
  for (int64_t i = 0; i < key_dim * value_dim; ++i) head.state[i] *= decay;
  read_state(k, head.state, key_dim, value_dim, written);
  const float* const v = head.v(token);
#pragma omp simd
  for (int64_t i = 0; i < value_dim; ++i) written[i] = beta * (v[i] - written[i]);
  for (int64_t d = 0; d < key_dim; ++d) add_scaled(k[d], written, value_dim, head.state + d * value_dim);
  read_state(q, head.state, key_dim, value_dim, head.out(token));
}

MOERUN_CLONES void norm_and_gate(const float* weight, const float* z, float eps, int64_t n, float* x) {
  const float scale = 1.0F / std::sqrt(dot16(x, x, n) / static_cast<float>(n) + eps);
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) x[i] = x[i] * scale * weight[i] * silu(z[i]);
}

MOERUN_CLONES void times_sigmoid(const float* gate, int64_t n, float* x) {
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) x[i] *= 1.0F / (1.0F + exp_f32(-gate[i]));
}

}  // namespace

void delta_conv(const DeltaPlan& plan, const DeltaConvArgs& args) {
  const DeltaShape& shape = args.shape;
  const int64_t channels = shape.channels(), earlier = shape.conv_width - 1;
#pragma omp parallel for schedule(dynamic)
  for (int64_t seq = 0; seq < plan.num_seqs; ++seq) {
    const Span span = span_of(plan, seq);
    const auto state = [&](int64_t slot) { return args.state + slot * earlier * channels; };
    std::vector<float> rows(static_cast<size_t>((earlier + span.count()) * channels));
    if (span.start > 0) std::copy_n(state(span.slot), earlier * channels, rows.data());
    for (int64_t i = 0; i < span.count(); ++i) {
      gather_channels(shape, args.qkvz + (span.begin + i) * shape.width(),
                      rows.data() + (earlier + i) * channels);
      convolve(rows.data() + i * channels, args.weight, channels, shape.conv_width,
               args.qkv + (span.begin + i) * channels);
      gates_of(args, span.begin + i);
    }
    const auto keep = [&](int64_t position, int64_t slot) {
      std::copy_n(rows.data() + (position - span.start) * channels, earlier * channels, state(slot));
    };
    each_save(plan, seq, keep);
    keep(span.start + span.count(), span.slot);
  }
}

void delta_rule(const DeltaPlan& plan, const DeltaRuleArgs& args) {
  const DeltaShape& shape = args.shape;
  const int64_t heads = shape.num_value_heads, size = shape.key_dim * shape.value_dim;
#pragma omp parallel for collapse(2) schedule(dynamic)
  for (int64_t seq = 0; seq < plan.num_seqs; ++seq)
    for (int64_t index = 0; index < heads; ++index) {
      const Span span = span_of(plan, seq);
      const auto state = [&](int64_t slot) { return args.state + (slot * heads + index) * size; };
      const Head head{&args, index, state(span.slot)};
      Scratch scratch(shape);
      if (span.start == 0) std::fill_n(head.state, size, 0.0F);
      if (seq >= plan.num_prefill_seqs) {
        for (int64_t token = span.begin; token < span.end; ++token) recurrent_rule(head, token, scratch);
        continue;
      }
      for (int64_t token = span.begin; token < span.end; token += kDeltaChunk) {
        const int64_t count = std::min<int64_t>(kDeltaChunk, span.end - token);
        chunk_rule(head, token, count, scratch);
        each_save(plan, seq, [&](int64_t position, int64_t slot) {
          if (position == span.start + (token - span.begin) + count)
            std::copy_n(head.state, size, state(slot));
        });
      }
    }
}

void delta_norm(const DeltaNormArgs& args) {
  const DeltaShape& shape = args.shape;
  const DeltaColumns columns(shape);
  for (int64_t token = 0; token < args.n; ++token)
    for (int64_t head = 0; head < shape.num_value_heads; ++head)
      norm_and_gate(args.weight, args.qkvz + token * shape.width() + columns.z(head), args.eps,
                    shape.value_dim, args.x + token * shape.values() + head * shape.value_dim);
}

void gate_heads(const float* qkv, int64_t width, int64_t n, int64_t num_heads, int64_t head_dim,
                float* heads) {
  for (int64_t token = 0; token < n; ++token)
    for (int64_t head = 0; head < num_heads; ++head)
      times_sigmoid(qkv + token * width + (2 * head + 1) * head_dim, head_dim,
                    heads + (token * num_heads + head) * head_dim);
}

}  // namespace moerun::cpu
