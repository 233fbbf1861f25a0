// Gated delta nets on the GPU against their CPU twin, and the same bits whatever the steps and the
// neighbours.
#include <algorithm>
#include <cstring>

#include "tests/gpu/each_dtype.h"
#include "tests/gpu/pair.h"

using namespace moerun;
using namespace moerun::test;

namespace {

constexpr double kTolerance16 = 6e-3, kToleranceState = 3e-3;

/// Of a few outputs, behind three roundings to 16 bits.
double tolerance_of_part(DType dtype) { return dtype == DType::bfloat16 ? 2.5e-2 : 4e-3; }

struct Part {
  int32_t slot, start, count;  // tokens [start, start + count) of the sequence whose state is in `slot`
  bool decode;
};
struct Save {
  int32_t part, position, slot;
};

/// Sequences of one layer: all inputs, on one device.
class Net {
 public:
  Net(Side& side, const DeltaShape& shape, int32_t slots, std::mt19937_64 random, DType dtype)
      : side_(side), shape_(shape), slots_(slots) {
    const int64_t heads = shape.num_value_heads;
    weight_ = side.put(random_values(random, shape.channels() * shape.conv_width, dtype, 0.5F),
                       shape.channels(), shape.conv_width);
    a_log_ = side.put(random_values(random, heads, DType::float32), 1, heads, DType::float32);
    dt_bias_ = side.put(random_values(random, heads, DType::float32), 1, heads, DType::float32);
    norm_ = side.put(random_values(random, shape.value_dim, dtype), 1, shape.value_dim);
    state_ = {.shape = shape};
    state_.conv = side.poisoned(slots * state_.conv_rows(), shape.channels());
    state_.memory = side.poisoned(slots * state_.memory_rows(), shape.value_dim, DType::float32);
    for (int32_t slot = 0; slot < slots; ++slot) {
      qkvz_.push_back(random_values(random, kLongest * shape.width(), dtype));
      ba_.push_back(random_values(random, kLongest * 2 * heads, dtype, 2));
    }
  }

  /// One step: what comes out of each part.
  std::vector<Floats> step(const std::vector<Part>& parts, const std::vector<Save>& saves = {}) {
    StepPlan plan{.cu_seqlens_q = {0}, .max_blocks = 1};
    Floats qkvz, ba;
    for (const Part& part : parts) {
      const auto rows = [&](const Floats& of, int64_t width, Floats& to) {
        to.insert(to.end(), of.begin() + part.start * width, of.begin() + (part.start + part.count) * width);
      };
      rows(qkvz_[static_cast<size_t>(part.slot)], shape_.width(), qkvz);
      rows(ba_[static_cast<size_t>(part.slot)], 2 * shape_.num_value_heads, ba);
      plan.cu_seqlens_q.push_back(plan.cu_seqlens_q.back() + part.count);
      plan.context_lens.push_back(part.start + part.count);
      plan.block_table.push_back(0);
      plan.state_slots.push_back(part.slot);
      plan.num_prefill_seqs += part.decode ? 0 : 1;
    }
    for (const Save& save : saves)
      plan.state_saves.insert(plan.state_saves.end(), {save.part, save.position, save.slot});
    const int64_t n = plan.cu_seqlens_q.back();
    plan.tokens.assign(static_cast<size_t>(n), 0);
    plan.positions = plan.slot_mapping = plan.tokens;
    Device& device = side_.device();
    const DevicePlan on_device = device.upload(plan);
    const Tensor in = side_.put(qkvz, n, shape_.width());
    const Tensor qkv = side_.poisoned(n, shape_.channels());
    const Tensor gates = side_.poisoned(n, 2 * shape_.num_value_heads, DType::float32);
    const Tensor out = side_.poisoned(n, shape_.values());
    device.delta_conv(on_device, {.qkvz = in,
                                  .ba = side_.put(ba, n, 2 * shape_.num_value_heads),
                                  .weight = weight_,
                                  .a_log = a_log_,
                                  .dt_bias = dt_bias_,
                                  .state = state_,
                                  .qkv = qkv,
                                  .gates = gates});
    device.delta_rule(on_device, {.qkv = qkv, .gates = gates, .state = state_, .out = out});
    convolved_ = side_.get(qkv), gates_ = side_.get(gates), ruled_ = side_.get(out);
    device.delta_norm({.x = out, .qkvz = in, .weight = norm_, .shape = shape_, .eps = 1e-6F});
    const Floats normed = side_.get(out);
    std::vector<Floats> of_parts;
    for (size_t i = 0; i < parts.size(); ++i)
      of_parts.emplace_back(normed.begin() + plan.cu_seqlens_q[i] * shape_.values(),
                            normed.begin() + plan.cu_seqlens_q[i + 1] * shape_.values());
    return of_parts;
  }

  /// A slot's, as they are now.
  std::vector<Floats> state(int32_t slot) {
    return {side_.get(state_.conv.slice(slot * state_.conv_rows(), (slot + 1) * state_.conv_rows())),
            side_.get(state_.memory.slice(slot * state_.memory_rows(), (slot + 1) * state_.memory_rows()))};
  }
  DeltaState layer() const { return state_; }
  const Floats& convolved() const { return convolved_; }
  const Floats& gates() const { return gates_; }
  const Floats& ruled() const { return ruled_; }

  static constexpr int64_t kLongest = 400;

 private:
  Side& side_;
  DeltaShape shape_;
  int32_t slots_;
  Tensor weight_, a_log_, dt_bias_, norm_;
  DeltaState state_;
  std::vector<Floats> qkvz_, ba_;  // by slot
  Floats convolved_, gates_, ruled_;
};

const DeltaShape kShapes[] = {
    {.num_key_heads = 2, .num_value_heads = 4, .key_dim = 128, .value_dim = 128, .conv_width = 4},
    {.num_key_heads = 3,
     .num_value_heads = 6,
     .key_dim = 40,
     .value_dim = 72,
     .conv_width = 3,
     .by_key_heads = true},
    {.num_key_heads = 1, .num_value_heads = 1, .key_dim = 8, .value_dim = 8, .conv_width = 2},
    {.num_key_heads = 2,
     .num_value_heads = 8,
     .key_dim = 128,
     .value_dim = 64,
     .conv_width = 4,
     .by_key_heads = true}};

bool same(const Floats& a, const Floats& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}
bool same(const std::vector<Floats>& a, const std::vector<Floats>& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(),
                    [](const Floats& x, const Floats& y) { return same(x, y); });
}

/// Steps that have prompts begun, gone on with and cut short, and answers, on slots 0 to 3.
const std::vector<std::vector<Part>> kSteps = {
    {{0, 0, 128, false}, {1, 0, 1, false}, {2, 0, 191, false}, {3, 0, 2, false}},
    {{0, 128, 37, false}, {1, 1, 1, true}, {3, 2, 1, true}},
    {{0, 165, 1, true}, {1, 2, 1, true}, {2, 191, 1, true}, {3, 3, 1, true}},
    {{3, 4, 1, true}, {0, 166, 1, true}, {2, 192, 1, true}}};

}  // namespace

TEST_CASE("gpu: gated delta nets, prompts and answers, and states that are kept", "[gpu][delta]") {
  for_each_dtype([](DType dtype, std::mt19937_64& random) {
    Pair pair(dtype);
    for (const DeltaShape& shape : kShapes) {
      CAPTURE(shape.num_value_heads, shape.key_dim, shape.value_dim, shape.conv_width, shape.by_key_heads);
      Net cpu(pair.cpu, shape, 6, random, dtype), gpu(pair.gpu, shape, 6, random, dtype);
      random.discard(1);
      for (size_t i = 0; i < kSteps.size(); ++i) {
        CAPTURE(i);
        const std::vector<Save> saves =
            i == 0 ? std::vector<Save>{{0, 64, 4}, {2, 191, 5}} : std::vector<Save>{};
        const std::vector<Floats> expected = cpu.step(kSteps[i], saves), found = gpu.step(kSteps[i], saves);
        CHECK(normalised_error(gpu.convolved(), cpu.convolved()) < kTolerance16);
        CHECK(normalised_error(gpu.gates(), cpu.gates()) < 1e-5);
        CHECK(normalised_error(gpu.ruled(), cpu.ruled()) < tolerance_of_part(dtype));
        for (size_t part = 0; part < found.size(); ++part)
          CHECK(normalised_error(found[part], expected[part]) < tolerance_of_part(dtype));
      }
      for (int32_t slot = 0; slot < 6; ++slot) {
        CAPTURE(slot);
        const std::vector<Floats> expected = cpu.state(slot), found = gpu.state(slot);
        CHECK(same(found[0], expected[0]));
        CHECK(normalised_error(found[1], expected[1]) < kToleranceState);
      }
    }
  });
}

TEST_CASE("gpu: a gated delta net has the same bits alone, in a batch and in other steps", "[gpu][delta]") {
  for_each_dtype([](DType dtype, std::mt19937_64& random) {
    Pair pair(dtype);
    for (const DeltaShape& shape : kShapes) {
      CAPTURE(shape.num_value_heads, shape.key_dim, shape.value_dim);
      Net batch(pair.gpu, shape, 6, random, dtype), alone(pair.gpu, shape, 6, random, dtype);
      random.discard(1);
      std::vector<Floats> in_batch(4), by_itself(4);
      for (size_t i = 0; i < kSteps.size(); ++i) {
        const std::vector<Floats> out =
            batch.step(kSteps[i], i == 0 ? std::vector<Save>{{0, 64, 4}} : std::vector<Save>{});
        for (size_t part = 0; part < out.size(); ++part) {
          Floats& all = in_batch[static_cast<size_t>(kSteps[i][part].slot)];
          all.insert(all.end(), out[part].begin(), out[part].end());
        }
      }
      // Each by itself; prompts in steps of one chunk.
      for (const std::vector<Part>& step : kSteps)
        for (const Part& part : step)
          for (int32_t at = 0; at < part.count;) {
            const int32_t count = part.decode ? part.count : std::min(kDeltaChunk, part.count - at);
            const Floats out = alone.step({{part.slot, part.start + at, count, part.decode}}).front();
            Floats& all = by_itself[static_cast<size_t>(part.slot)];
            all.insert(all.end(), out.begin(), out.end());
            at += count;
            if (part.slot == 0 && part.start + at == 64) CHECK(same(alone.state(0), batch.state(4)));
          }
      for (int32_t slot = 0; slot < 4; ++slot) {
        CAPTURE(slot);
        CHECK(same(in_batch[static_cast<size_t>(slot)], by_itself[static_cast<size_t>(slot)]));
        CHECK(same(batch.state(slot), alone.state(slot)));
      }
    }
  });
}

TEST_CASE("gpu: states of sequences go to the host and back, and to other slots", "[gpu][delta]") {
  for_each_dtype([](DType dtype, std::mt19937_64& random) {
    Pair pair(dtype);
    Net net(pair.gpu, kShapes[1], 6, random, dtype);
    net.step({{0, 0, 70, false}, {1, 0, 64, false}, {2, 0, 3, false}});
    Device& device = pair.gpu.device();
    const std::vector<DeltaState> layers{net.layer()};
    const std::vector<Floats> first = net.state(0), second = net.state(1), third = net.state(2);
    device.swap_states(layers, std::vector<int32_t>{0, 2, 1, 0}, Device::Swap::out);
    device.copy_states(layers, std::vector<int32_t>{2, 0, 2, 5});
    CHECK(same(net.state(0), third));
    CHECK(same(net.state(5), third));
    device.swap_states(layers, std::vector<int32_t>{3, 2, 4, 0}, Device::Swap::in);
    CHECK(same(net.state(3), first));
    CHECK(same(net.state(4), second));
    CHECK(same(net.state(2), third));
  });
}

TEST_CASE("gpu: norms with weights in float32, and heads times their gates", "[gpu][delta]") {
  for_each_dtype([](DType dtype, std::mt19937_64& random) {
    Pair pair(dtype);
    for (const int64_t cols : {8, 2048, 10248}) {
      constexpr int64_t kRows = 5;
      const Floats x = random_values(random, kRows * cols, dtype),
                   y = random_values(random, kRows * cols, dtype),
                   weight = random_values(random, cols, DType::float32);
      std::vector<Floats> results[2];
      int which = 0;
      for (Side* side : {&pair.cpu, &pair.gpu}) {
        const Tensor in = side->put(x, kRows, cols), residual = side->put(y, kRows, cols),
                     w = side->put(weight, 1, cols, DType::float32), out = side->poisoned(kRows, cols);
        side->device().rms_norm(in, w, 1e-6F, out);
        results[which].push_back(side->get(out));
        side->device().add_rms_norm({residual, in, w, 1e-6F, out});
        results[which].push_back(side->get(out));
        // Heads of cols / 4 elements with a gate behind each; keys and values of one head.
        const int64_t dim = cols / 4;
        const Tensor qkv = side->put(Floats(x.begin(), x.begin() + 2 * (2 * 2 + 2) * dim), 2, 6 * dim),
                     heads = side->put(Floats(y.begin(), y.begin() + 2 * 2 * dim), 2, 2 * dim);
        side->device().gate_heads({.qkv = qkv, .heads = heads, .head_dim = static_cast<int32_t>(dim)});
        results[which++].push_back(side->get(heads));
      }
      for (size_t i = 0; i < results[0].size(); ++i) {
        CAPTURE(cols, i);
        CHECK(normalised_error(results[1][i], results[0][i]) < kTolerance16);
      }
    }
  });
}
