// Attention on the GPU against its CPU twin, and the same bits whatever the chunks and the neighbours.
#include <algorithm>
#include <cstring>
#include <numeric>

#include "device/cpu_device.h"
#include "device/cuda_device.h"
#include "moerun/error.h"
#include "tests/catch.h"
#include "tests/gpu/side.h"

using namespace moerun;
using namespace moerun::test;

namespace {

constexpr double kTolerance16 = 6e-3;

struct Shape {
  int32_t heads, kv_heads, head_dim, block_size;
};

/// A sequence's last `queries` positions of `context`; `decode`: its one query takes the decode path.
struct Query {
  size_t sequence;
  int32_t queries, context;
  bool decode;
};

/// Of activations, and of keys and values.
struct Types {
  DType dtype, kept;
};
const std::vector<Types> kTypes{{DType::bfloat16, DType::bfloat16},
                                {DType::float16, DType::float16},
                                {DType::bfloat16, DType::e4m3},
                                {DType::float16, DType::e4m3}};

/// Rounded to e4m3 where that is what is kept; a third of them are so small that many are subnormal there.
Floats random_rows(std::mt19937_64& random, int64_t rows, int64_t cols, const Types& types) {
  Floats values = random_values(random, rows * cols, types.dtype);
  if (types.kept != DType::e4m3) return values;
  for (size_t i = 0; i < values.size(); ++i) {
    const bool small = static_cast<int64_t>(i) / cols % 3 == 0;
    values[i] = e4m3_to_float(float_to_e4m3(small ? values[i] / 64 : values[i]));
  }
  return values;
}

/// Sequences with random keys and values in shuffled blocks, on both devices; queries for every position.
class Cache {
 public:
  Cache(const Types& types, const Shape& shape, const std::vector<int32_t>& lengths, std::mt19937_64& random)
      : shape_(shape),
        dtype_(types.dtype),
        cpu_device_(make_cpu_device()),
        gpu_device_(make_cuda_device({.dtype = types.dtype, .gpu_memory_utilization = 0.2})) {
    int32_t num_blocks = 0;
    for (const int32_t length : lengths) num_blocks += blocks_of(length);
    std::vector<int32_t> pool(static_cast<size_t>(num_blocks));
    std::iota(pool.begin(), pool.end(), 0);
    std::shuffle(pool.begin(), pool.end(), random);
    const int64_t rows = int64_t{num_blocks} * shape.kv_heads * shape.block_size;
    keys_ = random_rows(random, rows, shape.head_dim, types);
    values_ = random_rows(random, rows, shape.head_dim, types);
    auto next = pool.begin();
    for (const int32_t length : lengths) {
      blocks_.emplace_back(next, next + blocks_of(length));
      next += blocks_of(length);
      // What lies past a sequence's end is poison.
      for (int32_t at = length; at < blocks_of(length) * shape.block_size; ++at)
        for (int32_t head = 0; head < shape.kv_heads; ++head) {
          const int64_t row = (int64_t{blocks_.back().back()} * shape.kv_heads + head) * shape.block_size +
                              at % shape.block_size;
          std::fill_n(keys_.begin() + row * shape.head_dim, shape.head_dim, std::nanf(""));
          std::fill_n(values_.begin() + row * shape.head_dim, shape.head_dim, std::nanf(""));
        }
      queries_.push_back(random_values(random, int64_t{length} * width(), types.dtype));
    }
    const StepLimits limits{.max_num_batched_tokens = 8192,
                            .max_num_seqs = 64,
                            .max_model_len = 8192,
                            .block_size = shape.block_size,
                            .max_logit_rows = 1,
                            .num_heads = shape.heads,
                            .num_kv_heads = shape.kv_heads,
                            .head_dim = shape.head_dim,
                            .hidden_size = 64,
                            .vocab_size = 64};
    for (Device* device : {cpu_device_.get(), gpu_device_.get()}) device->reserve(limits);
    keep_in(types.kept);
  }

  /// Puts the keys and values there again, as `kept`, which has room for them; a CPU device's own is float32.
  void keep_in(DType kept) {
    const int64_t rows = static_cast<int64_t>(keys_.size()) / shape_.head_dim;
    int which = 0;
    for (Device* device : {cpu_device_.get(), gpu_device_.get()}) {
      Side side(*device);
      const auto put = [&](const Floats& values) {
        return kept == DType::e4m3 ? side.put_e4m3(values, rows, shape_.head_dim)
                                   : side.put(values, rows, shape_.head_dim);
      };
      k_[which] = put(keys_);
      v_[which++] = put(values_);
    }
  }

  /// Rows of outputs, as float32, in the order of `queries` (prefills first).
  Floats run(const std::vector<Query>& queries, bool on_gpu) {
    StepPlan plan;
    plan.cu_seqlens_q.push_back(0);
    Floats q;
    for (const Query& query : queries) plan.max_blocks = std::max(plan.max_blocks, blocks_of(query.context));
    for (const Query& query : queries) {
      for (int32_t i = 0; i < query.queries; ++i) {
        plan.tokens.push_back(0);
        plan.positions.push_back(query.context - query.queries + i);
        plan.slot_mapping.push_back(0);
      }
      const Floats& all = queries_[query.sequence];
      q.insert(q.end(), all.begin() + (query.context - query.queries) * width(),
               all.begin() + query.context * width());
      plan.cu_seqlens_q.push_back(plan.num_tokens());
      plan.context_lens.push_back(query.context);
      plan.num_prefill_seqs += query.decode ? 0 : 1;
      for (int32_t b = 0; b < plan.max_blocks; ++b)
        plan.block_table.push_back(
            b < blocks_of(query.context) ? blocks_[query.sequence][static_cast<size_t>(b)] : -1);
    }
    Device& device = on_gpu ? *gpu_device_ : *cpu_device_;
    Side side(device);
    const Tensor in = side.put(q, plan.num_tokens(), width()),
                 out = side.poisoned(plan.num_tokens(), width());
    device.attention(device.upload(plan),
                     {.q = in,
                      .kv = {k_[on_gpu], v_[on_gpu], shape_.kv_heads, shape_.block_size, shape_.head_dim},
                      .out = out,
                      .num_heads = shape_.heads,
                      .scale = 1 / std::sqrt(static_cast<float>(shape_.head_dim))});
    return side.get(out);
  }
  int64_t width() const { return int64_t{shape_.heads} * shape_.head_dim; }

 private:
  int32_t blocks_of(int32_t length) const { return (length + shape_.block_size - 1) / shape_.block_size; }

  Shape shape_;
  DType dtype_;
  std::unique_ptr<Device> cpu_device_, gpu_device_;
  Floats keys_, values_;
  std::vector<Floats> queries_;
  std::vector<std::vector<int32_t>> blocks_;
  Tensor k_[2], v_[2];
};

bool same_bits(const Floats& a, const Floats& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

const std::vector<int32_t> kLengths{1, 31, 33, 64, 65, 1000, 5000, 512, 513};

}  // namespace

TEST_CASE("gpu: attention on odd sizes, against the CPU twin", "[gpu][attention]") {
  for (const Types& types : kTypes)
    for (const Shape& shape :
         {Shape{8, 1, 128, 64}, Shape{4, 4, 128, 32}, Shape{4, 2, 64, 128}, Shape{8, 2, 64, 64},
          Shape{16, 1, 128, 32}, Shape{16, 1, 64, 64}, Shape{7, 1, 128, 128}, Shape{12, 1, 128, 64},
          Shape{8, 1, 128, 96}, Shape{7, 1, 64, 256}, Shape{8, 1, 256, 64}, Shape{16, 1, 256, 32},
          Shape{6, 2, 256, 96}, Shape{11, 1, 256, 128}}) {
      const uint64_t seed = std::random_device()();
      INFO(name_of(types.dtype) << ", kept in " << name_of(types.kept) << ", " << shape.heads << " heads, "
                                << shape.kv_heads << " of keys, " << shape.head_dim << " wide, blocks of "
                                << shape.block_size << ", seed " << seed);
      std::mt19937_64 random(seed);
      Cache cache(types, shape, kLengths, random);
      for (size_t i = 0; i < kLengths.size(); ++i)
        for (const bool decode : {false, true}) {
          // The CPU twin widens e4m3 anew for each query and head.
          const int32_t most = types.kept == DType::e4m3 ? 10 : 300;
          const int32_t length = kLengths[i], queries = decode ? 1 : std::min(length, most);
          INFO((decode ? "decode, context " : "prefill, context ") << length);
          const std::vector<Query> step{{i, queries, length, decode}};
          CHECK(normalised_error(cache.run(step, true), cache.run(step, false)) < kTolerance16);
        }
    }
}

// Groups that do not fill a tile's 128 rows, that leave it one position, and that fit no tile.
TEST_CASE("gpu: prefill attention with many query heads a key head", "[gpu][attention]") {
  const std::vector<int32_t> lengths{1, 129, 300};
  for (const int32_t group : {43, 65, 128}) {
    const uint64_t seed = std::random_device()();
    INFO("groups of " << group << ", seed " << seed);
    std::mt19937_64 random(seed);
    Cache cache(kTypes[0], {2 * group, 2, 64, 32}, lengths, random);
    std::vector<Query> step;
    for (size_t i = 0; i < lengths.size(); ++i) step.push_back({i, lengths[i], lengths[i], false});
    CHECK(normalised_error(cache.run(step, true), cache.run(step, false)) < kTolerance16);
  }
  std::mt19937_64 random(1);
  Cache cache(kTypes[0], {129, 1, 64, 32}, {40}, random);
  const std::vector<Query> too_many{{0, 40, 40, false}};
  CHECK_THROWS_AS(cache.run(too_many, true), Error);
}

// More sequences than a warp has lanes, more tiles than a GPU has multiprocessors, chunks of very different
// lengths, of which several follow each other in one thread block: what one leaves behind is poison to the
// next.
TEST_CASE("gpu: attention over many ragged chunks at once", "[gpu][attention]") {
  for (const auto& [shape, types] : {std::pair{Shape{32, 4, 128, 64}, kTypes[0]},
                                     {Shape{14, 2, 64, 96}, kTypes[0]},
                                     {Shape{16, 2, 256, 64}, kTypes[1]},
                                     {Shape{32, 4, 128, 64}, kTypes[2]},
                                     {Shape{16, 2, 256, 96}, kTypes[2]},
                                     {Shape{14, 2, 64, 96}, kTypes[2]}}) {
    const uint64_t seed = std::random_device()();
    INFO("kept in " << name_of(types.kept) << ", " << shape.heads << " heads, " << shape.head_dim
                    << " wide, blocks of " << shape.block_size << ", seed " << seed);
    std::mt19937_64 random(seed);
    std::vector<int32_t> lengths(50);
    for (int32_t& length : lengths) length = 1 + static_cast<int32_t>(random() % 600);
    Cache cache(types, shape, lengths, random);
    std::vector<Query> step;
    for (size_t i = 0; i < lengths.size(); ++i)
      step.push_back({i, 1 + static_cast<int32_t>(random() % std::min(lengths[i], 160)), lengths[i], false});
    const Floats together = cache.run(step, true);
    CHECK(normalised_error(together, cache.run(step, false)) < kTolerance16);
    int64_t row = 0;
    for (const Query& query : step) {
      INFO(query.queries << " of " << query.context);
      CHECK(same_bits(cache.run({query}, true),
                      Floats(together.begin() + row * cache.width(),
                             together.begin() + (row + query.queries) * cache.width())));
      row += query.queries;
    }
  }
}

TEST_CASE("gpu: attention's bits do not depend on chunks or neighbours", "[gpu][attention]") {
  for (const Types& types : kTypes)
    for (const Shape& shape : {Shape{32, 4, 128, 64}, Shape{4, 4, 64, 32}, Shape{14, 2, 128, 64},
                               Shape{8, 2, 64, 96}, Shape{16, 2, 256, 64}, Shape{16, 1, 256, 96}}) {
      const uint64_t seed = std::random_device()();
      INFO(name_of(types.dtype) << ", kept in " << name_of(types.kept) << ", " << shape.heads << " heads, "
                                << shape.kv_heads << " of keys, " << shape.head_dim << " wide, seed "
                                << seed);
      std::mt19937_64 random(seed);
      Cache cache(types, shape, kLengths, random);
      // Whole prompts together with others that decode.
      std::vector<Query> together;
      for (const size_t i : {5, 1, 3, 8}) together.push_back({i, kLengths[i], kLengths[i], false});
      for (const size_t i : {6, 0, 4, 7, 2}) together.push_back({i, 1, kLengths[i], true});
      const Floats batch = cache.run(together, true);
      CHECK(same_bits(cache.run(together, true), batch));
      int64_t row = 0;
      for (const Query& query : together) {
        INFO((query.decode ? "decode, context " : "prefill, context ") << query.context);
        const Floats expected(batch.begin() + row * cache.width(),
                              batch.begin() + (row + query.queries) * cache.width());
        row += query.queries;
        CHECK(same_bits(cache.run({query}, true), expected));
        if (query.decode) continue;
        Floats chunked;
        for (int32_t begin = 0; begin < query.queries;) {
          const int32_t end = std::min(query.queries, begin + 1 + static_cast<int32_t>(random() % 200));
          const Floats part = cache.run({{query.sequence, end - begin, end, false}}, true);
          chunked.insert(chunked.end(), part.begin(), part.end());
          begin = end;
        }
        CHECK(same_bits(chunked, expected));
      }
    }
}

TEST_CASE("gpu: prefill and decode side by side have the bits that each has alone", "[gpu][attention]") {
  for (const Types& types : {kTypes[0], kTypes[2]}) {
    const uint64_t seed = std::random_device()();
    INFO("kept in " << name_of(types.kept) << ", seed " << seed);
    std::mt19937_64 random(seed);
    // Long enough for both that neither waits for the other to end (StepAttention).
    std::vector<int32_t> lengths{900, 1300};
    for (int i = 0; i < 60; ++i) lengths.push_back(static_cast<int32_t>(1500 + random() % 600));
    Cache cache(types, Shape{32, 4, 128, 64}, lengths, random);
    std::vector<Query> prefills{{0, 900, 900, false}, {1, 1100, 1300, false}}, decodes;
    for (size_t i = 2; i < lengths.size(); ++i) decodes.push_back({i, 1, lengths[i], true});
    std::vector<Query> together = prefills;
    together.insert(together.end(), decodes.begin(), decodes.end());
    Floats expected = cache.run(prefills, true);
    const Floats of_decodes = cache.run(decodes, true);
    expected.insert(expected.end(), of_decodes.begin(), of_decodes.end());
    for (int i = 0; i < 20; ++i) CHECK(same_bits(cache.run(together, true), expected));
  }
}

// Widening is exact, and what follows it is what 16 bits have.
TEST_CASE("gpu: prefill over keys and values in e4m3 has the bits of the same ones in 16 bits",
          "[gpu][attention]") {
  for (const Types& types : {kTypes[2], kTypes[3]})
    for (const Shape& shape :
         {Shape{32, 4, 128, 64}, Shape{8, 2, 64, 96}, Shape{7, 1, 128, 32}, Shape{12, 1, 256, 64}}) {
      const uint64_t seed = std::random_device()();
      INFO(name_of(types.dtype) << ", " << shape.heads << " heads, " << shape.head_dim << " wide, seed "
                                << seed);
      std::mt19937_64 random(seed);
      Cache cache(types, shape, kLengths, random);
      std::vector<Query> prefills;
      for (size_t i = 0; i < kLengths.size(); ++i)
        prefills.push_back({i, std::min(kLengths[i], 700), kLengths[i], false});
      const Floats in_e4m3 = cache.run(prefills, true);
      cache.keep_in(types.dtype);
      CHECK(same_bits(in_e4m3, cache.run(prefills, true)));
    }
}
