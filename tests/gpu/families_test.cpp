// What families need beyond Qwen3-MoE, on the CPU and on the GPU: router rules, gates in float32, heads
// rotated in part or in pairs of neighbours, a norm over all heads, the shared expert; and that a row's bits
// depend on itself alone.
#include <algorithm>
#include <cstring>

#include "tests/gpu/each_dtype.h"
#include "tests/gpu/pair.h"

using namespace moerun;
using namespace moerun::test;

namespace {

constexpr double kTolerance16 = 6e-3;
constexpr double kTolerance32 = 1e-5;

struct Routing {
  std::vector<int32_t> ids;
  Floats weights;
};

struct RouterCase {
  const char* name;
  int64_t n, hidden, experts, k;
  RouterRule rule;
  bool bias, float32_gate;
};

RouterRule sigmoid_rule(int32_t groups = 1, int32_t taken = 1, float scale = 1) {
  return {.score = RouterRule::Score::sigmoid,
          .num_groups = groups,
          .groups_taken = taken,
          .normalise = true,
          .added_to_sum = 1e-20F,
          .scale = scale};
}

const RouterCase kRouterCases[] = {
    {"MiniMax-M2's", 37, 256, 256, 8, {.score = RouterRule::Score::sigmoid, .normalise = true}, true, false},
    {"GLM-4.5-Air's", 130, 328, 128, 8, sigmoid_rule(), true, true},
    {"groups and a scale", 401, 200, 160, 8, sigmoid_rule(8, 3, 2.5F), true, true},
    {"groups, a gate of 16 bits", 77, 264, 96, 6, sigmoid_rule(32, 5, 2.5F), true, false},
    {"ERNIE's", 901, 264, 64, 6, {.normalise = true, .least_sum = 1e-12F}, true, true},
    {"one token, one expert chosen", 1, 8, 5, 1, {.scale = 0.5F}, false, true},
    {"512 experts", 19, 1032, 512, 32, sigmoid_rule(2, 1), true, true},
    {"a gate in float32 alone", 2500, 72, 7, 3, {}, false, true},
    {"softmax with a bias", 2500, 72, 33, 3, {}, true, false}};

Routing route(Side& side, const RouterCase& c, Tensor x, Tensor gate, Tensor bias) {
  const Ints ids = side.put_ints(std::vector<int32_t>(static_cast<size_t>(x.rows * c.k), -7));
  const Tensor weights = side.poisoned(x.rows, c.k, DType::float32);
  side.device().router({.x = x,
                        .gate = gate,
                        .bias = bias,
                        .num_experts_per_tok = static_cast<int32_t>(c.k),
                        .rule = c.rule,
                        .topk_ids = ids,
                        .topk_weights = weights});
  return {side.get_ints(ids), side.get(weights)};
}

/// Rows [begin, end) of `whole`, of `row` values each, are `part` to the last bit.
template <typename Value>
bool same_rows(const std::vector<Value>& whole, const std::vector<Value>& part, int64_t begin, int64_t row) {
  return std::memcmp(whole.data() + begin * row, part.data(), part.size() * sizeof(Value)) == 0;
}

}  // namespace

TEST_CASE("gpu: routers of every rule, with gates of 16 bits and in float32", "[gpu][families]") {
  for_each_dtype([](DType dtype, std::mt19937_64& random) {
    Pair pair(dtype);
    for (const RouterCase& c : kRouterCases) {
      INFO(c.name);
      const DType of_gate = c.float32_gate ? DType::float32 : pair.dtype;
      const Floats x = random_values(random, c.n * c.hidden, pair.dtype),
                   gate = random_values(random, c.experts * c.hidden, of_gate, 0.1F),
                   bias = random_values(random, c.experts, DType::float32, 0.2F);
      std::vector<Routing> found;
      for (Side* side : {&pair.cpu, &pair.gpu}) {
        const Tensor tokens = side->put(x, c.n, c.hidden),
                     w = side->put(gate, c.experts, c.hidden,
                                   c.float32_gate ? DType::float32 : side->device().dtype()),
                     b = c.bias ? side->put(bias, 1, c.experts, DType::float32) : Tensor{};
        found.push_back(route(*side, c, tokens, w, b));
        if (side != &pair.gpu) continue;
        for (const auto& [begin, end] :
             {std::pair<int64_t, int64_t>{0, 1}, {c.n / 3, c.n / 3 + c.n / 2}, {c.n - 1, c.n}}) {
          if (begin >= end) continue;
          CAPTURE(begin, end);
          const Routing part = route(*side, c, tokens.slice(begin, end), w, b);
          CHECK(same_rows(found.back().ids, part.ids, begin, c.k));
          CHECK(same_rows(found.back().weights, part.weights, begin, c.k));
        }
      }
      size_t different = 0;
      for (size_t i = 0; i < found[0].ids.size(); ++i) different += found[0].ids[i] != found[1].ids[i];
      CHECK(different <= found[0].ids.size() / 50);  // near ties of float32 sums in another order
      if (different == 0) CHECK(normalised_error(found[1].weights, found[0].weights) < kTolerance32);
    }
  });
}

namespace {

struct RopeCase {
  int32_t heads, kv_heads, head_dim, rotated;
  bool interleaved;
  enum class Norm { none, per_head, whole } norm;
  int32_t tensor;  ///< ranks whose heads are normed together
  bool gated = false, float32_norm = false;
};

const RopeCase kRopeCases[] = {{8, 2, 128, 64, false, RopeCase::Norm::none, 1},
                               {12, 1, 128, 64, false, RopeCase::Norm::per_head, 1},
                               {3, 3, 64, 64, true, RopeCase::Norm::none, 1},
                               {20, 4, 128, 128, true, RopeCase::Norm::none, 1},
                               {6, 2, 128, 64, false, RopeCase::Norm::whole, 1},
                               {4, 4, 64, 64, false, RopeCase::Norm::whole, 2},
                               {2, 1, 128, 6, true, RopeCase::Norm::whole, 4},
                               {8, 1, 256, 64, false, RopeCase::Norm::per_head, 1, true, true},
                               {3, 3, 256, 256, false, RopeCase::Norm::per_head, 1, false, false},
                               {5, 2, 64, 64, false, RopeCase::Norm::per_head, 1, true, false},
                               {4, 2, 128, 128, false, RopeCase::Norm::per_head, 1, false, true}};

/// What rope_and_cache and what precedes it leave of rows [begin, end).
std::vector<Floats> rotate(Side& side, const RopeCase& c, const Floats& qkv, const Floats& weights,
                           const Floats& angles, int64_t begin, int64_t end) {
  constexpr int32_t kBlock = 32, kBlocks = 16, kPositions = 300;
  Device& device = side.device();
  const int64_t n = end - begin, d = c.head_dim, width = (c.heads * (c.gated ? 2 : 1) + 2 * c.kv_heads) * d;
  StepPlan plan{.cu_seqlens_q = {0, static_cast<int32_t>(n)},
                .context_lens = {static_cast<int32_t>(end)},
                .block_table = std::vector<int32_t>(kBlocks, 0),
                .max_blocks = kBlocks,
                .num_prefill_seqs = 1};
  for (int64_t i = begin; i < end; ++i) {
    plan.tokens.push_back(0);
    plan.positions.push_back(static_cast<int32_t>(i * 7 % kPositions));
    plan.slot_mapping.push_back(static_cast<int32_t>(kBlocks * kBlock - 1 - i));
  }
  const DevicePlan on_device = device.upload(plan);
  const Tensor rows = side.put(Floats(qkv.begin() + begin * width, qkv.begin() + end * width), n, width);
  std::vector<Floats> out;
  Tensor scales{};
  if (c.norm == RopeCase::Norm::whole) {
    // The other ranks' heads are this one's, in another order of rows.
    const int32_t sums = c.heads + c.kv_heads;
    const Tensor squares = side.poisoned(n, sums, DType::float32);
    device.head_squares(rows, c.head_dim, squares);
    out.push_back(side.get(squares));
    Floats gathered;
    for (int32_t rank = 0; rank < c.tensor; ++rank)
      for (const float sum : out.back()) gathered.push_back(sum * static_cast<float>(1 + rank));
    scales = side.poisoned(n, 2, DType::float32);
    device.qk_scales({.squares = side.put(gathered, n * c.tensor, sums, DType::float32),
                      .tensor = c.tensor,
                      .num_heads = c.heads * c.tensor,
                      .num_kv_heads = c.kv_heads == 1 && c.tensor == 4 ? 2 : c.kv_heads * c.tensor,
                      .head_dim = c.head_dim,
                      .eps = 1e-6F,
                      .out = scales});
    out.push_back(side.get(scales));
  }
  const int64_t cache_rows = int64_t{kBlocks} * c.kv_heads * kBlock;
  const KvLayer kv{side.poisoned(cache_rows, d), side.poisoned(cache_rows, d), c.kv_heads, kBlock,
                   c.head_dim};
  const Tensor q = side.poisoned(n, c.heads * d);
  const auto norm = [&](int64_t heads) {
    if (c.norm == RopeCase::Norm::none) return Tensor{};
    const int64_t count = c.norm == RopeCase::Norm::whole ? heads * d : d;
    const DType of_norm = c.float32_norm ? DType::float32 : device.dtype();
    return side.put(Floats(weights.begin(), weights.begin() + count), 1, count, of_norm);
  };
  const int64_t half = c.rotated / 2;
  Floats cos, sin;
  for (int64_t i = 0; i < kPositions * half; ++i) {
    cos.push_back(std::cos(angles[static_cast<size_t>(i)]));
    sin.push_back(std::sin(angles[static_cast<size_t>(i)]));
  }
  device.rope_and_cache(on_device, {.qkv = rows,
                                    .gated = c.gated,
                                    .q_norm = norm(c.heads),
                                    .k_norm = norm(c.kv_heads),
                                    .scales = scales,
                                    .cos = side.put(cos, kPositions, half, DType::float32),
                                    .sin = side.put(sin, kPositions, half, DType::float32),
                                    .interleaved = c.interleaved,
                                    .q = q,
                                    .kv = kv,
                                    .num_heads = c.heads,
                                    .eps = 1e-6F});
  out.push_back(side.get(q));
  // The rows that were written, token by token; the others are poison still.
  for (const Tensor& half_of : {kv.k, kv.v}) {
    const Floats all = side.get(half_of);
    Floats written;
    for (const int32_t slot : plan.slot_mapping)
      for (int32_t head = 0; head < c.kv_heads; ++head) {
        const int64_t row = (int64_t{slot / kBlock} * c.kv_heads + head) * kBlock + slot % kBlock;
        written.insert(written.end(), all.begin() + row * d, all.begin() + (row + 1) * d);
      }
    CHECK(std::count_if(all.begin(), all.end(), [](float v) { return !std::isnan(v); }) ==
          static_cast<int64_t>(written.size()));
    out.push_back(std::move(written));
  }
  return out;
}

}  // namespace

TEST_CASE("gpu: heads rotated in part and in pairs of neighbours, normed each or all together",
          "[gpu][families]") {
  constexpr int64_t kRows = 67;
  for_each_dtype([](DType dtype, std::mt19937_64& random) {
    Pair pair(dtype);
    for (const RopeCase& c : kRopeCases) {
      CAPTURE(c.heads, c.kv_heads, c.head_dim, c.rotated, c.interleaved, static_cast<int>(c.norm), c.tensor,
              c.gated, c.float32_norm);
      const Floats qkv = random_values(
                       random, kRows * (c.heads * (c.gated ? 2 : 1) + 2 * c.kv_heads) * c.head_dim, dtype),
                   weights =
                       random_values(random, c.heads * c.head_dim, c.float32_norm ? DType::float32 : dtype),
                   angles = random_values(random, 300 * c.rotated / 2, DType::float32, 3);
      const std::vector<Floats> cpu = rotate(pair.cpu, c, qkv, weights, angles, 0, kRows),
                                gpu = rotate(pair.gpu, c, qkv, weights, angles, 0, kRows);
      for (size_t i = 0; i < cpu.size(); ++i) {
        CAPTURE(i);
        CHECK(normalised_error(gpu[i], cpu[i]) < kTolerance16);
      }
      for (const auto& [begin, end] : {std::pair<int64_t, int64_t>{0, 1}, {13, 40}, {66, 67}}) {
        CAPTURE(begin, end);
        const std::vector<Floats> part = rotate(pair.gpu, c, qkv, weights, angles, begin, end);
        for (size_t i = 0; i < part.size(); ++i)
          CHECK(same_rows(gpu[i], part[i], begin, static_cast<int64_t>(gpu[i].size()) / kRows));
      }
    }
  });
}

TEST_CASE("gpu: the shared expert's share, with a gate and without; a dense MLP with biases",
          "[gpu][families]") {
  for_each_dtype([](DType dtype, std::mt19937_64& random) {
    Pair pair(dtype);
    for (const auto& [n, hidden, width] :
         {std::array<int64_t, 3>{1, 8, 8}, {67, 328, 200}, {130, 2048, 1408}, {3, 10248, 24}}) {
      CAPTURE(n, hidden, width);
      const Floats x = random_values(random, n * hidden, dtype), y = random_values(random, n * hidden, dtype),
                   sums = random_values(random, n * hidden, dtype),
                   gate = random_values(random, hidden, dtype, 0.05F),
                   w = random_values(random, 2 * width * hidden, dtype, 0.05F),
                   biases = random_values(random, 2 * width, dtype);
      std::vector<Floats> results[2];
      int which = 0;
      for (Side* side : {&pair.cpu, &pair.gpu}) {
        Device& device = side->device();
        std::vector<Floats>& out = results[which++];
        const Tensor in = side->put(x, n, hidden), shared = side->put(y, n, hidden);
        for (const Tensor& with : {Tensor{}, side->put(gate, 1, hidden)}) {
          const Tensor sum = side->put(sums, n, hidden);
          device.add_shared({.y = shared, .x = in, .gate = with, .sums = sum});
          out.push_back(side->get(sum));
          const Tensor last = side->put(Floats(sums.end() - hidden, sums.end()), 1, hidden);
          device.add_shared(
              {.y = shared.slice(n - 1, n), .x = in.slice(n - 1, n), .gate = with, .sums = last});
          CHECK(same_rows(out.back(), side->get(last), n - 1, hidden));
        }
        const Tensor logits = side->put(x, n, hidden, DType::float32);
        device.add_bias(logits, side->put(gate, 1, hidden, DType::float32));
        out.push_back(side->get(logits));
        const Matrix gate_up = side->matrix(Matrix::Kind::gate_up, 1, 2 * width, hidden, w);
        const Tensor bias = side->put(biases, 1, 2 * width), both = side->poisoned(n, 2 * width),
                     gated = side->poisoned(n, width);
        device.linear(in, gate_up, &bias, both);
        device.silu_mul(both, gated);
        out.push_back(side->get(gated));
      }
      for (size_t i = 0; i < results[0].size(); ++i) {
        CAPTURE(i);
        CHECK(normalised_error(results[1][i], results[0][i]) < kTolerance16);
      }
    }
  });
}
