// Invariant 1 on the GPU: a row's bits are the same alone, among others, and wherever it stands.
#include <algorithm>
#include <cstring>
#include <numeric>
#include <span>

#include "device/cuda/cuda_linear.h"
#include "device/cuda_device.h"
#include "kernels/cuda/grouped_gemm.h"
#include "kernels/cuda/tree_gemm_tiling.h"
#include "tests/gpu/each_dtype.h"
#include "tests/gpu/side.h"

using namespace moerun;
using namespace moerun::test;

namespace {

constexpr int64_t kRows = 700, kHidden = 2048, kVocab = 4099;
/// Where a smaller step begins and ends.
using Part = std::pair<int64_t, int64_t>;
constexpr Part kParts[] = {{0, 1}, {699, 700}, {13, 15}, {100, 137}, {256, 512}, {1, 700}};

StepLimits limits() {
  return {.max_num_batched_tokens = 2048,
          .max_num_seqs = 256,
          .max_model_len = 4096,
          .max_routed_tokens = 2048,
          .max_logit_rows = 1024,
          .num_heads = 32,
          .num_kv_heads = 4,
          .head_dim = 128,
          .hidden_size = kHidden,
          .vocab_size = kVocab,
          .num_experts = 64,
          .num_experts_per_tok = 8,
          .num_local_experts = 64,
          .moe_intermediate_size = 256};
}

/// Bytes of rows [begin, end).
std::vector<char> bytes_of(Device& device, const Tensor& tensor) {
  std::vector<char> bytes(tensor.bytes());
  device.copy_to_host(bytes.data(), tensor.data, bytes.size());
  return bytes;
}

class Bits {
 public:
  explicit Bits(DType dtype, const StepLimits& room = limits())
      : device_(make_cuda_device({.dtype = dtype, .gpu_memory_utilization = 0.2})), side_(*device_) {
    device_->reserve(room);
  }
  Side& side() { return side_; }
  Device& device() { return *device_; }

  /// `op(begin, end, out)` computes rows [begin, end) into `out`: all at once, then in parts.
  template <typename Op>
  void check(const char* what, int64_t cols, DType dtype, Op op, int64_t rows = kRows,
             std::span<const Part> parts = kParts) {
    INFO(what);
    const Tensor whole = side_.poisoned(rows, cols, dtype);
    op(0, rows, whole);
    const std::vector<char> expected = bytes_of(*device_, whole);
    for (const auto& [begin, end] : parts) {
      CAPTURE(begin, end);
      const Tensor part = side_.poisoned(end - begin, cols, dtype);
      op(begin, end, part);
      const std::vector<char> bytes = bytes_of(*device_, part);
      CHECK(std::memcmp(bytes.data(), expected.data() + static_cast<size_t>(begin) * part.row_bytes(),
                        bytes.size()) == 0);
    }
  }

 private:
  std::unique_ptr<Device> device_;
  Side side_;
};

}  // namespace

TEST_CASE("gpu bits: linear, linear_tree, norms", "[gpu]") {
  for_each_dtype([](DType dtype, std::mt19937_64& random) {
    Bits bits(dtype);
    Device& device = bits.device();
    for (const auto& [out_features, in_features] :
         {std::pair<int64_t, int64_t>{5120, 2048}, {2048, 4096}, {kVocab, 2048}, {1536, 256}}) {
      CAPTURE(out_features, in_features);
      const Tensor x = bits.side().put(random_values(random, kRows * in_features, dtype), kRows, in_features);
      const Matrix w = bits.side().matrix(Matrix::Kind::plain, 1, out_features, in_features,
                                          random_values(random, out_features * in_features, dtype, 0.05F));
      const Tensor bias = bits.side().put(random_values(random, out_features, dtype), 1, out_features);
      bits.check("linear", out_features, dtype,
                 [&](int64_t b, int64_t e, Tensor out) { device.linear(x.slice(b, e), w, nullptr, out); });
      bits.check("with bias", out_features, dtype,
                 [&](int64_t b, int64_t e, Tensor out) { device.linear(x.slice(b, e), w, &bias, out); });
      bits.check("float32", out_features, DType::float32,
                 [&](int64_t b, int64_t e, Tensor out) { device.linear(x.slice(b, e), w, nullptr, out); });
      if (out_features % 8 == 0)
        bits.check("in four parts", out_features, dtype,
                   [&](int64_t b, int64_t e, Tensor out) { device.linear_tree(x.slice(b, e), w, 4, out); });
    }
    const Tensor x = bits.side().put(random_values(random, kRows * kHidden, dtype), kRows, kHidden);
    const Tensor weight = bits.side().put(random_values(random, kHidden, dtype), 1, kHidden);
    bits.check("rms_norm", kHidden, dtype,
               [&](int64_t b, int64_t e, Tensor out) { device.rms_norm(x.slice(b, e), weight, 1e-6F, out); });
  });
}

TEST_CASE("gpu bits: linear_tree_add_rms_norm is linear_tree, then add_rms_norm", "[gpu]") {
  for_each_dtype([](DType dtype, std::mt19937_64& random) {
    Bits bits(dtype);
    Device& device = bits.device();
    struct Case {
      int64_t rows, cols;
      int32_t chunks;
      int64_t in_features = 512;
    };
    // 2,500 rows of 2,048 columns in eight parts, of a K that tree_gemm does not take, are more than the
    // workspace holds at once.
    for (const auto& [rows, cols, chunks, in_features] : {Case{1, kHidden, 4},
                                                          {37, kHidden, 1},
                                                          {300, 328, 2},
                                                          {kTreeGemmMinRows - 1, kHidden, 4},
                                                          {kTreeGemmMinRows, kHidden, 4},
                                                          {570, 328, 2},
                                                          {1690, kHidden, 8},
                                                          {2500, kHidden, 8, 448},
                                                          {5, 8200, 4},
                                                          {3, 16384, 8}}) {
      CAPTURE(rows, cols, chunks);
      const Tensor x = bits.side().put(random_values(random, rows * in_features, dtype), rows, in_features);
      const Matrix w = bits.side().matrix(Matrix::Kind::plain, 1, cols, in_features,
                                          random_values(random, cols * in_features, dtype, 0.05F));
      const Floats old = random_values(random, rows * cols, dtype);
      const AddRmsNormArgs one{.residual = bits.side().put(old, rows, cols),
                               .delta = bits.side().poisoned(rows, cols),
                               .weight = bits.side().put(random_values(random, cols, dtype), 1, cols),
                               .eps = 1e-6F,
                               .out = bits.side().poisoned(rows, cols)};
      device.linear_tree_add_rms_norm(x, w, chunks, one);
      const Tensor residual = bits.side().put(old, rows, cols), delta = bits.side().poisoned(rows, cols),
                   out = bits.side().poisoned(rows, cols);
      device.linear_tree(x, w, chunks, delta);
      device.add_rms_norm({residual, delta, one.weight, one.eps, out});
      CHECK(bytes_of(device, one.residual) == bytes_of(device, residual));
      CHECK(bytes_of(device, one.out) == bytes_of(device, out));
      CHECK(!std::isnan(bits.side().get(out)[0]));
      // The norm sums parts that cuBLASLt left; tree_gemm leaves their sum.
      const bool parts = chunks > 1 && !tree_gemm_takes(rows, cols, in_features, chunks);
      CHECK(std::isnan(bits.side().get(one.delta)[0]) == parts);
    }
  });
}

TEST_CASE("gpu bits: expert_ffn_add_rms_norm is expert_ffn, then add_rms_norm", "[gpu]") {
  constexpr int64_t kWidth = 72, kMostHidden = 8200;
  constexpr int32_t kExperts = 24, kMostK = 12;
  StepLimits room = limits();
  room.num_experts_per_tok = kMostK;
  room.hidden_size = kMostHidden;
  for_each_dtype([&](DType dtype, std::mt19937_64& random) {
    Bits bits(dtype, room);
    Device& device = bits.device();
    Side& side = bits.side();
    ExpertSlots slots;  // a third of the experts is elsewhere
    for (int32_t e = 0; e < kExperts; ++e)
      slots.host_local_slot.push_back(e % 3 == 1 ? -1 : static_cast<int32_t>(slots.num_local++));
    slots.local_slot = side.put_ints(slots.host_local_slot);
    // 2,500 tokens are more than the workspace holds at once; the last two shapes go one after the other.
    for (const auto& [tokens, hidden, k] : {std::tuple<int64_t, int64_t, int32_t>{1, kHidden, 8},
                                            {2500, kHidden, 8},
                                            {41, 40, 1},
                                            {300, 328, 3},
                                            {77, 1032, 7},
                                            {19, 4104, 8},
                                            {5, 8192, 6},
                                            {5, kMostHidden, 8},
                                            {37, 328, kMostK}}) {
      CAPTURE(tokens, hidden, k);
      const Matrix gate_up =
          side.matrix(Matrix::Kind::expert_gate_up, slots.num_local, 2 * kWidth, hidden,
                      random_values(random, slots.num_local * 2 * kWidth * hidden, dtype, 0.05F));
      const Matrix down = side.matrix(Matrix::Kind::expert_down, slots.num_local, hidden, kWidth,
                                      random_values(random, slots.num_local * hidden * kWidth, dtype, 0.05F));
      std::vector<int32_t> ids, order(kExperts);
      std::iota(order.begin(), order.end(), 0);
      for (int64_t t = 0; t < tokens; ++t) {
        std::shuffle(order.begin(), order.end(), random);
        for (int32_t i = 0; i < k; ++i)  // a fifth of the tokens has none at all
          ids.push_back(t % 5 == 4 ? -1 : order[static_cast<size_t>(i)]);
      }
      const Floats x = random_values(random, tokens * hidden, dtype);
      Floats old = random_values(random, tokens * hidden, dtype);
      for (size_t i = 0; i < old.size(); i += 3) old[i] = -0.0F;  // with no expert's sum, 0, it is +0
      const Tensor weights =
          side.put(random_values(random, tokens * k, DType::float32), tokens, k, DType::float32);
      const auto experts = [&](const Tensor& in, const Tensor& out) {
        return ExpertFfnArgs{.in = {.x = in, .topk_ids = side.put_ints(ids), .topk_weights = weights},
                             .gate_up = &gate_up,
                             .down = &down,
                             .slots = &slots,
                             .out = out};
      };
      const auto norm = [&](const Tensor& weight, const Tensor& out) {
        return AddRmsNormArgs{.residual = side.put(old, tokens, hidden),
                              .delta = side.poisoned(tokens, hidden),
                              .weight = weight,
                              .eps = 1e-6F,
                              .out = out};
      };
      const Tensor weight = side.put(random_values(random, hidden, dtype), 1, hidden);
      const AddRmsNormArgs one = norm(weight, side.put(x, tokens, hidden)),  // in the place of the tokens
          two = norm(weight, side.poisoned(tokens, hidden));
      device.expert_ffn_add_rms_norm(experts(one.out, one.delta), one);
      device.expert_ffn(experts(side.put(x, tokens, hidden), two.delta));
      device.add_rms_norm(two);
      CHECK(bytes_of(device, one.residual) == bytes_of(device, two.residual));
      CHECK(bytes_of(device, one.out) == bytes_of(device, two.out));
      CHECK(std::isfinite(side.get(two.out)[0]));
      CHECK(side.get(two.residual) != old);
      CHECK(std::isnan(side.get(one.delta)[0]) == (k <= 8 && hidden <= 8192));  // in one pass
    }
  });
}

TEST_CASE("gpu bits: router and expert_ffn", "[gpu]") {
  for_each_dtype([](DType dtype, std::mt19937_64& random) {
    Bits bits(dtype);
    Device& device = bits.device();
    // Rows and parts take tiles of other sizes; the router has four ways to cut its rows.
    constexpr int64_t kExperts = 48, kWidth = 256, k = 8, kRouterRows = 2500;
    constexpr Part kRouterParts[] = {{0, 1},   {2499, 2500}, {100, 137}, {5, 389},
                                     {5, 390}, {1700, 2450}, {3, 1027},  {700, 2300}};
    const Tensor x =
        bits.side().put(random_values(random, kRouterRows * kHidden, dtype), kRouterRows, kHidden);
    const Tensor gate =
        bits.side().put(random_values(random, kExperts * kHidden, dtype, 0.05F), kExperts, kHidden);
    ExpertSlots slots;
    slots.host_local_slot.resize(kExperts);
    std::iota(slots.host_local_slot.begin(), slots.host_local_slot.end(), 0);
    slots.num_local = kExperts;
    slots.local_slot = bits.side().put_ints(slots.host_local_slot);
    const Matrix gate_up =
        bits.side().matrix(Matrix::Kind::expert_gate_up, kExperts, 2 * kWidth, kHidden,
                           random_values(random, kExperts * 2 * kWidth * kHidden, dtype, 0.05F));
    const Matrix down = bits.side().matrix(Matrix::Kind::expert_down, kExperts, kHidden, kWidth,
                                           random_values(random, kExperts * kHidden * kWidth, dtype, 0.05F));
    const Ints ids = device.ints(kRouterRows * k, "test");
    const auto route = [&](int64_t b, int64_t e, Tensor weights) {
      device.router({.x = x.slice(b, e),
                     .gate = gate,
                     .num_experts_per_tok = k,
                     .rule = {.normalise = true},
                     .topk_ids = {ids.data, (e - b) * k},
                     .topk_weights = weights});
    };
    bits.check("router", k, DType::float32, route, kRouterRows, kRouterParts);
    for (const int64_t experts : {4, 200, 512}) {
      CAPTURE(experts);
      const int64_t chosen = std::min<int64_t>(experts, 8);
      const Tensor other_gate =
          bits.side().put(random_values(random, experts * kHidden, dtype, 0.05F), experts, kHidden);
      bits.check(
          "router", chosen, DType::float32,
          [&](int64_t b, int64_t e, Tensor weights) {
            device.router({.x = x.slice(b, e),
                           .gate = other_gate,
                           .num_experts_per_tok = static_cast<int32_t>(chosen),
                           .rule = {},
                           .topk_ids = {ids.data, (e - b) * chosen},
                           .topk_weights = weights});
          },
          kRouterRows, kRouterParts);
    }
    bits.check("experts", kHidden, dtype, [&](int64_t b, int64_t e, Tensor out) {
      const Tensor weights = bits.side().poisoned(e - b, k, DType::float32);
      route(b, e, weights);
      device.expert_ffn({.in = {x.slice(b, e), {ids.data, (e - b) * k}, weights},
                         .gate_up = &gate_up,
                         .down = &down,
                         .slots = &slots,
                         .out = out});
    });
  });
}

TEST_CASE("gpu bits: expert_ffn where its tiling and its kernel change, of skewed routing", "[gpu]") {
  constexpr int64_t kTokens = 1810, kIn = 1032, kWidth = 136;  // neither fills its blocks of 64 and 128
  constexpr int32_t kExperts = 8, k = 4;
  const auto max_rows = [](int64_t tokens) { return grouped_gemm_tiling(tokens, k, kExperts).max_rows; };
  for_each_dtype([&](DType dtype, std::mt19937_64& random) {
    Bits bits(dtype);
    std::vector<Part> parts{{0, 1}, {kTokens - 1, kTokens}, {100, 137}};
    const auto add = [&](int64_t tokens) {
      const auto begin = static_cast<int64_t>(random() % static_cast<uint64_t>(kTokens - tokens + 1));
      parts.emplace_back(begin, begin + tokens);
    };
    std::vector<int32_t> tilings{max_rows(1)};
    for (int64_t tokens = 2; tokens <= kTokens; ++tokens) {
      if (max_rows(tokens) == tilings.back()) continue;
      tilings.push_back(max_rows(tokens));
      add(tokens - 1);
      add(tokens);
    }
    REQUIRE(tilings == std::vector<int32_t>{64, 128, 160});

    const Tensor x = bits.side().put(random_values(random, kTokens * kIn, dtype), kTokens, kIn);
    const Matrix gate_up =
        bits.side().matrix(Matrix::Kind::expert_gate_up, kExperts, 2 * kWidth, kIn,
                           random_values(random, kExperts * 2 * kWidth * kIn, dtype, 0.05F));
    const Matrix down = bits.side().matrix(Matrix::Kind::expert_down, kExperts, kIn, kWidth,
                                           random_values(random, kExperts * kIn * kWidth, dtype, 0.05F));
    ExpertSlots slots;
    slots.host_local_slot = {0, 1, 2, 3, 4, 5, 6, 7};
    slots.num_local = kExperts;
    slots.local_slot = bits.side().put_ints(slots.host_local_slot);
    const Tensor weights =
        bits.side().put(random_values(random, kTokens * k, DType::float32), kTokens, k, DType::float32);
    struct Routing {
      const char* name;
      int from, to;  // of the experts, which are in random order; a token goes to the first k
      bool marked;   // all but the first are computed elsewhere
    };
    for (const Routing& routing :
         {Routing{"uniform", 0, kExperts, false}, Routing{"two experts without tokens", 1, 6, false},
          Routing{"the same for all", 0, 0, false}, Routing{"all on one", 0, 0, true}}) {
      std::vector<int32_t> ids, order(kExperts);
      std::iota(order.begin(), order.end(), 0);
      std::shuffle(order.begin(), order.end(), random);
      for (int64_t t = 0; t < kTokens; ++t) {
        std::shuffle(order.begin() + routing.from, order.begin() + routing.to, random);
        for (int i = 0; i < k; ++i)
          ids.push_back(routing.marked && i > 0 ? -1 : order[static_cast<size_t>(i)]);
      }
      const Ints topk_ids = bits.side().put_ints(ids);
      bits.check(
          routing.name, kIn, dtype,
          [&](int64_t b, int64_t e, Tensor out) {
            bits.device().expert_ffn(
                {.in = {x.slice(b, e), {topk_ids.data + b * k, (e - b) * k}, weights.slice(b, e)},
                 .gate_up = &gate_up,
                 .down = &down,
                 .slots = &slots,
                 .out = out});
          },
          kTokens, parts);
    }
  });
}

TEST_CASE("gpu bits: the library computes every shape of a model", "[gpu]") {
  // Falling back to the plain kernel is right, and slow: none of the 30B model's products may.
  const auto device = make_cuda_device({.dtype = DType::bfloat16, .gpu_memory_utilization = 0.2});
  Arena arena(size_t{2} << 30);
  Stream stream;
  LinearProducts products(arena, stream, DType::bfloat16);
  Side side(*device);
  std::mt19937_64 random(std::random_device{}());
  constexpr int64_t kMost = 4096;
  for (const auto& [out_features, in_features, parts, dtype] :
       {std::tuple<int64_t, int64_t, int32_t, DType>{5120, 2048, 1, DType::bfloat16},
        {2048, 4096, 8, DType::bfloat16},
        {2048, 4096, 1, DType::bfloat16},
        {151936 / 8, 2048, 1, DType::float32}}) {
    const Tensor x =
        side.put(random_values(random, kMost * in_features, DType::bfloat16), kMost, in_features);
    const Matrix w = side.matrix(Matrix::Kind::plain, 1, out_features, in_features,
                                 random_values(random, out_features * in_features, DType::bfloat16, 0.05F));
    const Tensor out = device->tensor(kMost * parts, out_features, dtype, "test");
    device->synchronize();
    const int64_t last =
        tree_gemm_takes(kMost, out_features, in_features, parts) ? kTreeGemmMinRows - 1 : kMost;
    for (int64_t rows = 1; rows <= last; rows = rows < 4 ? rows + 1 : rows * 2)
      products.run({.x = x.data,
                    .w = w.data,
                    .out = out.data,
                    .out_dtype = dtype,
                    .rows = rows,
                    .out_features = out_features,
                    .in_features = in_features,
                    .parts = parts});
  }
  CHECK(products.counts().by_library == products.counts().classes);
}
