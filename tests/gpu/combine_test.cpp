// moe_combine and the sums of pairs of 16-bit values that it is made of, against the host's tree: exact bits.
#include <algorithm>
#include <numeric>
#include <span>

#include "device/cuda_device.h"
#include "kernels/cuda/moe_combine.h"
#include "moerun/expert_tree.h"
#include "tests/gpu/each_dtype.h"
#include "tests/gpu/side.h"

using namespace moerun;
using namespace moerun::test;

namespace {

/// Bits of 16-bit values; the NaN of a host and of a GPU differ in what carries no meaning.
bool same(const Floats& a, const Floats& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(), [](float x, float y) {
    return (std::isnan(x) && std::isnan(y)) || std::bit_cast<uint32_t>(x) == std::bit_cast<uint32_t>(y);
  });
}

/// ids[first, last) of a token as one subtree; `rows` are their rows of y.
Floats subtree(std::span<const int32_t> ids, const std::vector<Floats>& rows, DType dtype, int32_t first,
               int32_t last) {
  if (last - first == 1) return rows[static_cast<size_t>(first)];
  const int32_t middle = split_of_subtree(ids, first, last);
  Floats sum = subtree(ids, rows, dtype, first, middle);
  const Floats right = subtree(ids, rows, dtype, middle, last);
  for (size_t i = 0; i < sum.size(); ++i) sum[i] = round_to(dtype, sum[i] + right[i]);
  return sum;
}

struct Case {
  int32_t experts, k, hidden, local_percent;
  bool partial;
};

/// A step of random tokens and what combine must make of it.
struct Step {
  std::vector<int32_t> local_slot, ids, offsets{0};
  Floats y, out;
};

Step make_step(const Case& c, int64_t n, DType dtype, std::mt19937_64& random) {
  Step step;
  const auto chance = [&](int32_t percent) { return static_cast<int32_t>(random() % 100) < percent; };
  int32_t slots = 0;
  for (int32_t e = 0; e < c.experts; ++e) step.local_slot.push_back(chance(c.local_percent) ? slots++ : -1);
  step.y = random_values(random, n * c.k * c.hidden, dtype);
  std::vector<int32_t> experts(static_cast<size_t>(c.experts));
  std::iota(experts.begin(), experts.end(), 0);
  for (int64_t token = 0; token < n; ++token) {
    struct Pair {
      int32_t place, row;
      bool here;
    };
    std::vector<Pair> pairs;
    std::shuffle(experts.begin(), experts.end(), random);
    for (int32_t i = 0; i < c.k; ++i) {
      int32_t id = experts[static_cast<size_t>(i)];
      const bool local = step.local_slot[static_cast<size_t>(id)] >= 0;
      if (random() % 8 == 0) id = random() % 2 == 0 ? elsewhere(id) : -1;
      step.ids.push_back(id);
      const bool here = id >= 0 && local;
      // Without offsets a token has one sum, over what is here.
      if (tree_position(id) >= 0 && (here || c.partial))
        pairs.push_back({tree_position(id), static_cast<int32_t>(token * c.k + i), here});
    }
    std::sort(pairs.begin(), pairs.end(), [](const Pair& a, const Pair& b) { return a.place < b.place; });
    std::vector<int32_t> places, owners;
    std::vector<Floats> rows;
    for (const Pair& pair : pairs) {
      places.push_back(pair.place);
      owners.push_back(pair.here ? 0 : 1);
      const auto begin = step.y.begin() + int64_t{pair.row} * c.hidden;
      rows.emplace_back(begin, begin + c.hidden);
    }
    std::vector<ExpertSpan> spans;
    cut_into_spans(places, owners, spans);
    int32_t sums = 0;
    for (const ExpertSpan& span : spans) {
      if (owners[static_cast<size_t>(span.first)] != 0) continue;
      const Floats sum = subtree(places, rows, dtype, span.first, span.last);
      step.out.insert(step.out.end(), sum.begin(), sum.end());
      ++sums;
    }
    if (!c.partial && sums == 0) step.out.resize(step.out.size() + static_cast<size_t>(c.hidden));
    step.offsets.push_back(step.offsets.back() + sums);
  }
  return step;
}

}  // namespace

TEST_CASE("gpu bits: moe_combine is the tree over expert ids", "[gpu]") {
  constexpr int64_t kTokens = 37;
  for_each_dtype([&](DType dtype, std::mt19937_64& random) {
    const auto device = make_cuda_device({.dtype = dtype, .gpu_memory_utilization = 0.2});
    Side side(*device);
    std::vector<Case> cases{{128, 8, 2048, 100, false}, {512, 8, 2056, 100, false}, {512, 16, 4104, 50, true},
                            {128, 8, 264, 0, false},    {128, 8, 264, 0, true},     {16, 16, 8, 100, true},
                            {8, 8, 2048, 60, true},     {32, 8, 248, 80, true}};
    for (int32_t k = 1; k <= 16; ++k)
      for (const bool partial : {false, true}) cases.push_back({64, k, 40, 75, partial});
    for (const Case& c : cases) {
      CAPTURE(c.experts, c.k, c.hidden, c.local_percent, c.partial);
      const Step step = make_step(c, kTokens, dtype, random);
      const int64_t rows = c.partial ? step.offsets.back() : kTokens;
      // A row more, so that there is one, and nothing may be written there.
      const Tensor out = side.poisoned(rows + 1, c.hidden);
      const Ints ids = side.put_ints(step.ids), local_slot = side.put_ints(step.local_slot),
                 offsets = side.put_ints(step.offsets);
      launch_moe_combine({.dtype = dtype,
                          .y = side.put(step.y, kTokens * c.k, c.hidden).data,
                          .topk_ids = ids.data,
                          .local_slot = local_slot.data,
                          .partial_offsets = c.partial ? offsets.data : nullptr,
                          .out = out.data,
                          .num_tokens = static_cast<int32_t>(kTokens),
                          .k = c.k,
                          .hidden = c.hidden},
                         static_cast<cudaStream_t>(cuda_stream(*device)));
      Floats expected = step.out;
      expected.resize(expected.size() + static_cast<size_t>(c.hidden), std::nanf(""));
      CHECK(same(side.get(out), expected));
    }
  });
}

TEST_CASE("gpu bits: a sum of two 16-bit values is rounded as float32's sum is", "[gpu]") {
  constexpr int64_t kRows = 512, kCols = 2048, kCount = kRows * kCols;
  for_each_dtype([&](DType dtype, std::mt19937_64& random) {
    const auto device = make_cuda_device({.dtype = dtype, .gpu_memory_utilization = 0.2});
    Side side(*device);
    // Every finite pattern may come, subnormal ones too; half of the second values lie within 2^12 of the
    // first, where sums are not just the larger one.
    const auto pattern = [&] {
      for (;;) {
        const float value = widen(dtype, static_cast<uint16_t>(random()));
        if (std::isfinite(value)) return value;
      }
    };
    Floats shards(2 * kCount), expected(kCount);
    for (size_t i = 0; i < kCount; ++i) {
      shards[i] = pattern();
      float near = std::ldexp(shards[i], static_cast<int>(random() % 25) - 12);
      near = round_to(dtype, near * (1 + static_cast<float>(random() % 1024) / 1024));
      shards[kCount + i] =
          random() % 2 == 0 && std::isfinite(near) ? (random() % 2 == 0 ? near : -near) : pattern();
      expected[i] = round_to(dtype, shards[i] + shards[kCount + i]);
    }
    const Tensor sum = side.poisoned(kRows, kCols);
    device->tree_sum(side.put(shards, 2 * kRows, kCols), 2, sum);
    CHECK(same(side.get(sum), expected));
  });
}
