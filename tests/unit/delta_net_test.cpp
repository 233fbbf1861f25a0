// The gated delta net's operations on the CPU device against the rule as it is written down, in double
// precision.
#include <cmath>
#include <vector>

#include "device/cpu_device.h"
#include "tests/catch.h"

using namespace moerun;

namespace {

constexpr int32_t kSlots = 4, kC = kDeltaChunk;

float number(uint64_t seed, int64_t i) { return dummy_weight({.key = seed, .scale = 1}, i); }

/// One layer's inputs for a sequence of `length` tokens, and what the device makes of them.
struct Layer {
  Layer(const DeltaShape& of, int64_t length) : shape(of), n(length), device(make_cpu_device()) {
    const auto filled = [&](int64_t rows, int64_t cols, uint64_t seed, float scale) {
      const Tensor out = device->tensor(rows, cols, DType::float32, "test");
      for (int64_t i = 0; i < rows * cols; ++i) static_cast<float*>(out.data)[i] = scale * number(seed, i);
      return out;
    };
    qkvz = filled(n, shape.width(), 1, 2);
    ba = filled(n, 2 * shape.num_value_heads, 2, 3);
    weight = filled(shape.channels(), shape.conv_width, 3, 1);
    a_log = filled(1, shape.num_value_heads, 4, 3);
    dt_bias = filled(1, shape.num_value_heads, 5, 2);
    state.shape = shape;
    state.conv = filled(kSlots * state.conv_rows(), shape.channels(), 6, 100);  // what others left
    state.memory = filled(kSlots * state.memory_rows(), shape.value_dim, 7, 100);
    qkv = filled(n, shape.channels(), 8, 100);
    gates = filled(n, 2 * shape.num_value_heads, 9, 100);
    out = filled(n, shape.values(), 10, 100);
  }

  /// Tokens [begin, end) in `slot`; `saves` are [sequence, position, slot]….
  void step(int32_t begin, int32_t end, bool prefill, int32_t slot, const std::vector<int32_t>& saves = {}) {
    const StepPlan plan{.cu_seqlens_q = {0, end - begin},
                        .context_lens = {end},
                        .state_slots = {slot},
                        .state_saves = saves,
                        .num_prefill_seqs = prefill ? 1 : 0};
    const DevicePlan there = device->upload(plan);
    device->delta_conv(there, {.qkvz = qkvz.slice(begin, end),
                               .ba = ba.slice(begin, end),
                               .weight = weight,
                               .a_log = a_log,
                               .dt_bias = dt_bias,
                               .state = state,
                               .qkv = qkv.slice(begin, end),
                               .gates = gates.slice(begin, end)});
    device->delta_rule(there, {.qkv = qkv.slice(begin, end),
                               .gates = gates.slice(begin, end),
                               .state = state,
                               .out = out.slice(begin, end)});
  }
  std::vector<float> outputs(int64_t begin, int64_t end) const {
    const Tensor rows = out.slice(begin, end);
    const auto* const at = static_cast<const float*>(rows.data);
    return {at, at + rows.rows * rows.cols};
  }
  std::vector<float> kept(int32_t slot) const {
    std::vector<float> all;
    for (const Tensor& part :
         {state.conv.slice(slot * state.conv_rows(), (slot + 1) * state.conv_rows()),
          state.memory.slice(slot * state.memory_rows(), (slot + 1) * state.memory_rows())})
      all.insert(all.end(), static_cast<const float*>(part.data),
                 static_cast<const float*>(part.data) + part.rows * part.cols);
    return all;
  }

  DeltaShape shape;
  int64_t n;
  std::unique_ptr<Device> device;
  Tensor qkvz, ba, weight, a_log, dt_bias, qkv, gates, out;
  DeltaState state;
};

double at(const Tensor& tensor, int64_t row, int64_t col) {
  return static_cast<const float*>(tensor.data)[row * tensor.cols + col];
}

/// One value head by the recurrence, one token after the other: what each puts out.
std::vector<double> by_the_rule(const Layer& layer, int64_t head) {
  const DeltaShape& s = layer.shape;
  const DeltaColumns columns(s);
  const int64_t key_head = head / s.group();
  const auto conv = [&](int64_t token, int64_t column, int64_t channel) {
    double sum = 0;
    for (int64_t j = 0; j < s.conv_width; ++j)
      if (const int64_t from = token - (s.conv_width - 1) + j; from >= 0)
        sum += at(layer.weight, channel, j) * at(layer.qkvz, from, column);
    return sum / (1 + std::exp(-sum));
  };
  std::vector<double> state(static_cast<size_t>(s.key_dim * s.value_dim)), out;
  for (int64_t token = 0; token < layer.n; ++token) {
    std::vector<double> q, k;
    double qq = 1e-6, kk = 1e-6;
    for (int64_t d = 0; d < s.key_dim; ++d) {
      q.push_back(conv(token, columns.q(key_head) + d, key_head * s.key_dim + d));
      k.push_back(conv(token, columns.k(key_head) + d, s.keys() + key_head * s.key_dim + d));
      qq += q.back() * q.back(), kk += k.back() * k.back();
    }
    const double x = at(layer.ba, token, columns.a(head)) + at(layer.dt_bias, 0, head);
    const double decay = std::exp(-std::exp(at(layer.a_log, 0, head)) * std::log1p(std::exp(x)));
    const double beta = 1 / (1 + std::exp(-at(layer.ba, token, columns.b(head))));
    for (int64_t i = 0; i < s.value_dim; ++i) {
      const auto cell = [&](int64_t d) -> double& { return state[static_cast<size_t>(d * s.value_dim + i)]; };
      double known = 0, read = 0;
      for (int64_t d = 0; d < s.key_dim; ++d)
        known += (cell(d) *= decay) * k[static_cast<size_t>(d)] / std::sqrt(kk);
      const double v = conv(token, columns.v(head) + i, 2 * s.keys() + head * s.value_dim + i);
      for (int64_t d = 0; d < s.key_dim; ++d) {
        cell(d) += k[static_cast<size_t>(d)] / std::sqrt(kk) * beta * (v - known);
        read += cell(d) * q[static_cast<size_t>(d)] / std::sqrt(qq * static_cast<double>(s.key_dim));
      }
      out.push_back(read);
    }
  }
  return out;
}

const DeltaShape kShapes[] = {
    {.num_key_heads = 2,
     .num_value_heads = 6,
     .key_dim = 12,
     .value_dim = 10,
     .conv_width = 4,
     .by_key_heads = true},
    {.num_key_heads = 3, .num_value_heads = 3, .key_dim = 9, .value_dim = 17, .conv_width = 3},
    {.num_key_heads = 1, .num_value_heads = 2, .key_dim = 32, .value_dim = 16, .conv_width = 2},
};

}  // namespace

TEST_CASE("delta net: chunks and steps compute the recurrence", "[delta]") {
  for (const DeltaShape& shape : kShapes)
    for (const int32_t prompt : {1, 63, 64, 65, 200}) {
      CAPTURE(shape.num_key_heads, prompt);
      Layer layer(shape, prompt + 5);
      layer.step(0, prompt, true, 2);
      for (int32_t token = prompt; token < prompt + 5; ++token) layer.step(token, token + 1, false, 2);
      double worst = 0;
      for (int64_t head = 0; head < shape.num_value_heads; ++head) {
        const std::vector<double> expected = by_the_rule(layer, head);
        for (int64_t token = 0; token < layer.n; ++token)
          for (int64_t i = 0; i < shape.value_dim; ++i)
            worst = std::max(worst, std::abs(at(layer.out, token, head * shape.value_dim + i) -
                                             expected[static_cast<size_t>(token * shape.value_dim + i)]));
      }
      CHECK(worst < 2e-5);
    }
}

TEST_CASE("delta net: steps that end at borders change no bit, and what is saved is the state there",
          "[delta]") {
  for (const DeltaShape& shape : kShapes) {
    CAPTURE(shape.num_key_heads);
    constexpr int32_t kPrompt = 3 * kC + 17;
    Layer whole(shape, kPrompt), cut(shape, kPrompt), short_one(shape, kPrompt);
    whole.step(0, kPrompt, true, 1, {0, 2 * kC, 3, 0, kPrompt, 0});
    for (const auto& [begin, end] : {std::pair(0, kC), {kC, 3 * kC}, {3 * kC, kPrompt}})
      cut.step(begin, end, true, 2);
    CHECK(cut.outputs(0, kPrompt) == whole.outputs(0, kPrompt));
    CHECK(cut.kept(2) == whole.kept(1));
    CHECK(whole.kept(0) == whole.kept(1));
    short_one.step(0, 2 * kC, true, 2);
    CHECK(short_one.kept(2) == whole.kept(3));
    // A sequence that goes on from a copy comes to the same.
    const std::vector<int32_t> pairs{3, 2};
    whole.device->copy_states({&whole.state, 1}, pairs);
    const std::vector<float> expected = whole.outputs(2 * kC, kPrompt), state = whole.kept(1);
    whole.step(2 * kC, kPrompt, true, 2);
    CHECK(whole.outputs(2 * kC, kPrompt) == expected);
    CHECK(whole.kept(2) == state);
    // To the host and back into another slot.
    const std::vector<int32_t> away{2, 0}, back{3, 0};
    whole.device->swap_states({&whole.state, 1}, away, Device::Swap::out);
    whole.device->swap_states({&whole.state, 1}, back, Device::Swap::in);
    CHECK(whole.kept(3) == state);
  }
}

TEST_CASE("delta net: a sequence's bits do not depend on its neighbours", "[delta]") {
  const DeltaShape& shape = kShapes[0];
  Layer alone(shape, 150), together(shape, 150);
  alone.step(0, 100, true, 0);
  const std::vector<float> state = alone.kept(0);
  const StepPlan plan{.cu_seqlens_q = {0, 100, 149, 150},
                      .context_lens = {100, 49, 1},
                      .state_slots = {3, 1, 0},
                      .state_saves = {1, 49, 2},
                      .num_prefill_seqs = 2};
  const DevicePlan there = together.device->upload(plan);
  together.device->delta_conv(there, {.qkvz = together.qkvz,
                                      .ba = together.ba,
                                      .weight = together.weight,
                                      .a_log = together.a_log,
                                      .dt_bias = together.dt_bias,
                                      .state = together.state,
                                      .qkv = together.qkv,
                                      .gates = together.gates});
  together.device->delta_rule(
      there, {.qkv = together.qkv, .gates = together.gates, .state = together.state, .out = together.out});
  CHECK(together.outputs(0, 100) == alone.outputs(0, 100));
  CHECK(together.kept(3) == state);
  CHECK(together.kept(2) == together.kept(1));
}

TEST_CASE("delta net: heads are normed by themselves and gated", "[delta]") {
  const DeltaShape& shape = kShapes[0];
  Layer layer(shape, 3);
  const Tensor weight = layer.device->tensor(1, shape.value_dim, DType::float32, "test");
  for (int64_t i = 0; i < shape.value_dim; ++i) static_cast<float*>(weight.data)[i] = number(20, i);
  const std::vector<float> x = layer.outputs(0, 3);
  layer.device->delta_norm(
      {.x = layer.out, .qkvz = layer.qkvz, .weight = weight, .shape = shape, .eps = 1e-6F});
  const DeltaColumns columns(shape);
  for (int64_t token = 0; token < 3; ++token)
    for (int64_t head = 0; head < shape.num_value_heads; ++head) {
      const float* const row = x.data() + (token * shape.num_value_heads + head) * shape.value_dim;
      double squares = 0;
      for (int64_t i = 0; i < shape.value_dim; ++i) squares += double{row[i]} * row[i];
      const double scale = 1 / std::sqrt(squares / static_cast<double>(shape.value_dim) + 1e-6);
      for (int64_t i = 0; i < shape.value_dim; ++i) {
        const double z = at(layer.qkvz, token, columns.z(head) + i);
        const double expected = row[i] * scale * at(weight, 0, i) * z / (1 + std::exp(-z));
        CHECK(std::abs(at(layer.out, token, head * shape.value_dim + i) - expected) < 1e-5);
      }
    }
}
