// Keys and values in e4m3: how they are written, moved, and what becomes of NaN.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "tests/catch.h"
#include "tests/gpu/each_dtype.h"
#include "tests/gpu/pair.h"

using namespace moerun;
using namespace moerun::test;

namespace {

constexpr int32_t kBlock = 64, kBlocks = 8, kTokens = 150, kPositions = 512;

struct Case {
  int32_t heads, kv_heads, head_dim, rotated;
  bool norm, interleaved;
  float k_scale = 1, v_scale = 1;
};

/// One prompt whose blocks are in falling order.
StepPlan plan_of_prompt() {
  StepPlan plan;
  plan.cu_seqlens_q = {0, kTokens};
  plan.context_lens = {kTokens};
  plan.num_prefill_seqs = 1;
  plan.max_blocks = (kTokens + kBlock - 1) / kBlock;
  for (int32_t b = 0; b < plan.max_blocks; ++b) plan.block_table.push_back(kBlocks - 1 - b);
  for (int32_t t = 0; t < kTokens; ++t) {
    plan.tokens.push_back(0);
    plan.positions.push_back(t);
    plan.slot_mapping.push_back(plan.block_table[static_cast<size_t>(t / kBlock)] * kBlock + t % kBlock);
  }
  return plan;
}

/// What a device writes for one prompt, and what attention makes of it.
class Written {
 public:
  Written(Side& side, const Case& c, std::mt19937_64 random, DType dtype) : side_(side), case_(c) {
    const int64_t rows = int64_t{kBlocks} * c.kv_heads * kBlock,
                  width = (c.heads + 2 * c.kv_heads) * c.head_dim;
    qkv_ = random_values(random, kTokens * width, dtype);
    const Floats q_norm = random_values(random, c.head_dim, dtype),
                 k_norm = random_values(random, c.head_dim, dtype);
    Floats cos(static_cast<size_t>(kPositions * c.rotated / 2)), sin(cos.size());
    for (size_t i = 0; i < cos.size(); ++i) {
      const auto angle = static_cast<double>(i);
      cos[i] = static_cast<float>(std::cos(angle)), sin[i] = static_cast<float>(std::sin(angle));
    }
    const Floats empty(static_cast<size_t>(rows * c.head_dim), 0);
    args_ = {.q_norm = c.norm ? side.put(q_norm, 1, c.head_dim) : Tensor{},
             .k_norm = c.norm ? side.put(k_norm, 1, c.head_dim) : Tensor{},
             .cos = side.put(cos, kPositions, c.rotated / 2, DType::float32),
             .sin = side.put(sin, kPositions, c.rotated / 2, DType::float32),
             .interleaved = c.interleaved,
             .q = side.poisoned(kTokens, c.heads * c.head_dim),
             .kv = {side.put_e4m3(empty, rows, c.head_dim), side.put_e4m3(empty, rows, c.head_dim),
                    c.kv_heads, kBlock, c.head_dim, c.k_scale, c.v_scale},
             .num_heads = c.heads,
             .eps = 1e-6F};
  }

  /// Head `head` of all heads, of one token, to be NaN in one place.
  void spoil(int64_t token, int32_t head) {
    const int64_t heads = case_.heads + 2 * case_.kv_heads;
    qkv_[static_cast<size_t>((token * heads + head) * case_.head_dim + 5)] = std::nanf("");
  }
  void write() {
    const int64_t width = (case_.heads + 2 * case_.kv_heads) * case_.head_dim;
    args_.qkv = side_.put(qkv_, kTokens, width);
    side_.device().rope_and_cache(side_.device().upload(plan_of_prompt()), args_);
  }
  /// The prompt's outputs, or with `decode` the last token's.
  Floats attend(bool decode) {
    StepPlan plan = plan_of_prompt();
    Tensor q = args_.q;
    if (decode) {
      plan.cu_seqlens_q = {0, 1};
      plan.num_prefill_seqs = 0;
      plan.tokens = plan.positions = plan.slot_mapping = {kTokens - 1};
      q = q.slice(kTokens - 1, kTokens);
    }
    const Tensor out = side_.poisoned(q.rows, q.cols);
    side_.device().attention(side_.device().upload(plan),
                             {.q = q, .kv = args_.kv, .out = out, .num_heads = case_.heads, .scale = 0.1F});
    return side_.get(out);
  }
  Floats keys() { return side_.get(args_.kv.k); }
  Floats values() { return side_.get(args_.kv.v); }

 private:
  Side& side_;
  Case case_;
  Floats qkv_;
  RopeArgs args_;
};

bool all_nan(Floats::const_iterator begin, int64_t count) {
  return std::all_of(begin, begin + count, [](float x) { return std::isnan(x); });
}
bool no_nan(const Floats& values) {
  return std::none_of(values.begin(), values.end(), [](float x) { return std::isnan(x); });
}

}  // namespace

TEST_CASE("gpu: keys and values are rounded to e4m3 as the CPU twin rounds them", "[gpu][fp8]") {
  for_each_dtype([](DType dtype, std::mt19937_64& random) {
    Pair pair(dtype);
    for (const Case& c :
         {Case{8, 2, 128, 128, true, false}, Case{8, 2, 128, 128, false, false},
          Case{6, 3, 64, 64, true, false}, Case{8, 2, 128, 64, true, false}, Case{4, 4, 64, 64, false, true},
          Case{8, 1, 256, 64, true, false}, Case{6, 2, 256, 256, true, false},
          Case{8, 2, 128, 128, true, false, 0.37F, 0.021F}, Case{4, 4, 64, 64, false, true, 1.7F, 3.3F}}) {
      CAPTURE(c.heads, c.head_dim, c.rotated, c.norm, c.interleaved);
      const std::mt19937_64 same = random;
      Written cpu(pair.cpu, c, same, dtype), gpu(pair.gpu, c, same, dtype);
      cpu.write(), gpu.write();
      CHECK(gpu.values() == cpu.values());  // they are rounded once
      // The other device's float32 may lie on the other side of a tie, and with norms in 16 bits somewhat
      // further.
      const Floats of_cpu = cpu.keys(), of_gpu = gpu.keys();
      int64_t different = 0, far = 0;
      for (size_t i = 0; i < of_cpu.size(); ++i) {
        different += of_cpu[i] != of_gpu[i];
        far +=
            std::abs(of_cpu[i] - of_gpu[i]) > std::max(0.126F * std::abs(of_cpu[i]), c.norm ? 0.05F : 0.002F);
      }
      CHECK(far == 0);
      CHECK(different * 1000 <= (c.norm ? 60 : 1) * int64_t{kTokens} * c.kv_heads * c.head_dim);
      for (const bool decode : {false, true}) {
        const Floats out = gpu.attend(decode), expected = cpu.attend(decode);
        CHECK(normalised_error(out, expected) < (c.norm ? 6e-2 : 6e-3));
      }
    }
  });
}

// Earlier tokens of a tile multiply a later value with a weight of 0, in 16 bits as here.
TEST_CASE("gpu: a NaN among keys or values in e4m3 reaches all that attends to them", "[gpu][fp8]") {
  for_each_dtype([](DType dtype, std::mt19937_64& random) {
    Pair pair(dtype);
    constexpr int32_t kToken = 70, kHead = 1;  // of keys
    for (const Case& c : {Case{8, 2, 128, 128, true, false}, Case{8, 2, 64, 64, false, false},
                          Case{8, 2, 128, 128, false, true}, Case{8, 2, 256, 64, false, false}})
      for (const bool value : {false, true}) {
        CAPTURE(c.head_dim, c.interleaved, value);
        Written gpu(pair.gpu, c, random, dtype);
        gpu.spoil(kToken, c.heads + (value ? c.kv_heads : 0) + kHead);
        gpu.write();
        const Floats kept = value ? gpu.values() : gpu.keys();
        const int64_t row =
            (int64_t{kBlocks - 1 - kToken / kBlock} * c.kv_heads + kHead) * kBlock + kToken % kBlock;
        CHECK(all_nan(kept.begin() + row * c.head_dim, c.head_dim));
        CHECK(std::count_if(kept.begin(), kept.end(), [](float x) { return std::isnan(x); }) == c.head_dim);
        CHECK(no_nan(value ? gpu.keys() : gpu.values()));
        const int64_t group = c.heads / c.kv_heads * c.head_dim;
        for (const bool decode : {false, true}) {
          const Floats out = gpu.attend(decode);
          for (int64_t token = 0; token < (decode ? 1 : kTokens); ++token) {
            INFO((decode ? "decode, token " : "prefill, token ") << token);
            const auto first = out.begin() + token * c.heads * c.head_dim;
            const bool sees = decode || token >= kToken;
            CHECK(no_nan(Floats(first, first + kHead * group)));
            const auto spoilt = first + kHead * group;
            const auto nans = std::count_if(spoilt, spoilt + group, [](float x) { return std::isnan(x); });
            if (sees || !value) CHECK((nans > 0) == sees);
          }
        }
      }
  });
}

TEST_CASE("gpu: blocks and rows of keys and values in e4m3 are copied whole", "[gpu][fp8]") {
  std::mt19937_64 random(7);
  Pair pair(DType::bfloat16);
  constexpr int32_t kHeads = 3, kDim = 64;
  constexpr int64_t kRows = int64_t{kBlocks} * kHeads * kBlock;
  std::vector<Floats> results[2];
  const Floats values[2] = {random_values(random, kRows * kDim, DType::bfloat16),
                            random_values(random, kRows * kDim, DType::bfloat16)};
  int which = 0;
  for (Side* side : {&pair.cpu, &pair.gpu}) {
    const std::vector<KvLayer> cache{{side->put_e4m3(values[0], kRows, kDim),
                                      side->put_e4m3(values[1], kRows, kDim), kHeads, kBlock, kDim}};
    Device& device = side->device();
    device.copy_rows(cache, std::vector<int32_t>{1, 2, 17, 5, 6, 63});
    device.swap_blocks(cache, std::vector<int32_t>{3, 0, 4, 1}, Device::Swap::out);
    device.swap_blocks(cache, std::vector<int32_t>{4, 0, 0, 1}, Device::Swap::in);
    device.synchronize();
    for (const Tensor& half : {cache[0].k, cache[0].v}) results[which].push_back(side->get(half));
    ++which;
  }
  CHECK(results[0] == results[1]);
  const auto block = [&](const Floats& all, int32_t index) {
    constexpr int64_t kOne = int64_t{kHeads} * kBlock * kDim;
    return Floats(all.begin() + index * kOne, all.begin() + (index + 1) * kOne);
  };
  for (size_t half = 0; half < 2; ++half) {
    Floats rounded = values[half];
    for (float& x : rounded) x = e4m3_to_float(float_to_e4m3(x));
    CHECK(block(results[1][half], 4) == block(rounded, 3));
    CHECK(block(results[1][half], 0) == block(rounded, 4));
    CHECK(block(results[1][half], 7) == block(rounded, 7));
  }
}
