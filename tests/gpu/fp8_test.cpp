// Products with weights in e4m3 (moerun/fp8.h) on the GPU: against their CPU twins, and a row's bits alone
// and among others.
#include "moerun/fp8.h"

#include <algorithm>
#include <numeric>
#include <span>

#include "kernels/cuda/fp8_grouped_gemm.h"
#include "kernels/cuda/fp8_linear.h"
#include "moerun/half.h"
#include "tests/gpu/each_dtype.h"
#include "tests/gpu/pair.h"

using namespace moerun;
using namespace moerun::test;

namespace {

/// What a product may differ by from the CPU's: 1.3e-4 is what the tensor cores lose within a group of 128
/// (they keep fewer bits than float32), and each rounding to the 16-bit type is 2^-9 or 2^-12 at most, in the
/// mean square 1.66e-3 for bfloat16 and 2.1e-4 for float16. With a sixth to spare, which few elements need.
double product_tolerance(DType dtype, double roundings) {
  const double in_group = 1.3e-4, rounding = dtype == DType::bfloat16 ? 1.66e-3 : 2.1e-4;
  return 1.2 * std::sqrt(in_group * in_group + roundings * rounding * rounding);
}
/// h differs by a product's error and a rounding that the CPU does not make, together δ of it. That moves a
/// share of δ / step of its values to the next in e4m3, a step of 2^-4 to 2^-3 away: √(δ · step) in the mean
/// square.
double expert_tolerance(DType dtype) { return 1.2 * std::sqrt(product_tolerance(dtype, 1) * 0x1p-3); }

/// Matrices in e4m3, one under the other, with a scale for each block as a checkpoint has them.
struct Stored {
  int64_t rows, cols, block_rows, block_cols;
  std::vector<uint8_t> values;
  Floats scales;

  Stored(std::mt19937_64& random, int64_t r, int64_t c, int64_t br, int64_t bc)
      : rows(r), cols(c), block_rows(br), block_cols(bc) {
    std::normal_distribution<float> normal(0, 60);
    for (int64_t i = 0; i < rows * cols; ++i) values.push_back(float_to_e4m3(normal(random)));
    for (int64_t i = 0; i < (rows + br - 1) / br * stride(); ++i)
      scales.push_back(3e-4F * static_cast<float>(1 + random() % 4096) / 2048);
  }
  int64_t stride() const { return (cols + block_cols - 1) / block_cols; }
  /// Rows [begin, end).
  HostMatrix part(int64_t begin, int64_t end) const {
    return {.data = values.data() + begin * cols,
            .dtype = DType::e4m3,
            .rows = end - begin,
            .cols = cols,
            .row_stride = cols,
            .scales = {.data = scales.data(),
                       .block_rows = block_rows,
                       .block_cols = block_cols,
                       .stride = stride(),
                       .row0 = begin}};
  }
  /// `count` maps of this, which the device gets in two parts each: gate and up where they interleave.
  Matrix on(Device& device, Matrix::Kind kind, int64_t count) const {
    const int64_t each = rows / count, half = (each + 1) / 2;
    const Matrix matrix = device.matrix({kind, count, each, cols, DType::e4m3}, "test");
    for (int64_t i = 0; i < count; ++i) {
      device.load(matrix, i, 0, part(i * each, i * each + half));
      device.load(matrix, i, half, part(i * each + half, (i + 1) * each));
    }
    device.synchronize();
    return matrix;
  }
};

ExpertSlots slots_of(Side& side, const std::vector<int32_t>& local_slot) {
  ExpertSlots slots;
  slots.host_local_slot = local_slot;
  slots.local_slot = side.put_ints(local_slot);
  slots.num_local = std::count_if(local_slot.begin(), local_slot.end(), [](int32_t s) { return s >= 0; });
  return slots;
}

/// [n, k] distinct experts of `experts`, in any order, of which `skew` says how unevenly they are drawn: 0
/// for evenly, 1 where all tokens have the same.
std::vector<int32_t> routed(std::mt19937_64& random, int64_t n, int64_t k, int64_t experts, int skew) {
  std::vector<int32_t> ids, order(static_cast<size_t>(experts));
  std::iota(order.begin(), order.end(), 0);
  for (int64_t token = 0; token < n; ++token) {
    if (skew == 0) std::shuffle(order.begin(), order.end(), random);
    ids.insert(ids.end(), order.begin(), order.begin() + k);
  }
  return ids;
}

}  // namespace

TEST_CASE("gpu: products with FP8 weights are their CPU twins'", "[gpu][fp8]") {
  struct Case {
    const char* name;
    int64_t rows, out_features, in_features, block_rows, block_cols;
    int32_t chunks;
    bool bias;
  };
  for_each_dtype([](DType dtype, std::mt19937_64& random) {
    Pair pair(dtype);
    for (const Case& c : {Case{"one row", 1, 384, 256, 128, 128, 1, false},
                          Case{"nothing whole, with bias", 37, 200, 200, 128, 128, 1, true},
                          Case{"one group and less", 70, 8, 8, 128, 128, 1, false},
                          Case{"a scale for each row, with bias", 300, 328, 328, 1, 328, 1, true},
                          Case{"four chunks", 129, 512, 1024, 128, 128, 4, false},
                          Case{"eight chunks, a scale for each row", 65, 264, 1024, 1, 1024, 8, false},
                          Case{"two chunks in one pass", 700, 264, 512, 128, 128, 2, false},
                          Case{"eight chunks in one pass", 515, 384, 2048, 128, 128, 8, false},
                          Case{"many rows", 1100, 1536, 640, 128, 128, 1, false}}) {
      INFO(c.name);
      const Stored w(random, c.out_features, c.in_features, c.block_rows, c.block_cols);
      Floats x = random_values(random, c.rows * c.in_features, dtype, 2);
      std::fill_n(x.begin(), std::min<int64_t>(c.in_features, 128), 0.0F);  // a group of zeros
      const Floats bias = random_values(random, c.out_features, dtype);
      std::vector<Floats> sums;
      for (Side* const side : {&pair.cpu, &pair.gpu}) {
        const Tensor in = side->put(x, c.rows, c.in_features), out = side->poisoned(c.rows, c.out_features);
        const Matrix matrix = w.on(side->device(), Matrix::Kind::plain, 1);
        const Tensor b = side->put(bias, 1, c.out_features);
        if (c.chunks == 1)
          side->device().linear(in, matrix, c.bias ? &b : nullptr, out);
        else
          side->device().linear_tree(in, matrix, c.chunks, out);
        sums.push_back(side->get(out));
      }
      // The sums of a tree are rounded at each level.
      CHECK(normalised_error(sums[1], sums[0]) < product_tolerance(dtype, 1 + std::log2(c.chunks)));
    }
  });
}

TEST_CASE("gpu: experts with FP8 weights are their CPU twins", "[gpu][fp8]") {
  struct Case {
    const char* name;
    int64_t n, hidden, intermediate, experts, k;
    int skew;  // as `routed` has it; 2: evenly, and only every other expert is local
    bool row_scales;
  };
  for_each_dtype([](DType dtype, std::mt19937_64& random) {
    Pair pair(dtype);
    for (const Case& c :
         {Case{"one token", 1, 256, 128, 32, 8, 0, false}, Case{"odd", 37, 264, 72, 32, 8, 0, false},
          Case{"a scale for each row", 130, 256, 192, 16, 4, 0, true},
          Case{"all on the same", 130, 256, 64, 32, 8, 1, false},
          Case{"half local", 77, 256, 136, 32, 8, 2, false}, Case{"clusters", 600, 512, 256, 8, 2, 0, false},
          Case{"clusters, an odd last tile", 401, 328, 72, 4, 3, 1, false},
          Case{"clusters, half local", 710, 200, 104, 8, 2, 2, true}}) {
      INFO(c.name);
      std::vector<int32_t> local_slot(static_cast<size_t>(c.experts), -1);
      int32_t used = 0;
      for (int64_t e = 0; e < c.experts; ++e)
        if (c.skew != 2 || e % 2 == 0) local_slot[static_cast<size_t>(e)] = used++;
      const int64_t block =
          c.row_scales ? 1 : 8;  // 8 divides every expert's rows; whole experts may share one
      const Stored gate_up(random, used * 2 * c.intermediate, c.hidden, block, c.row_scales ? c.hidden : 128),
          down(random, used * c.hidden, c.intermediate, block, c.row_scales ? c.intermediate : 128);
      const Floats x = random_values(random, c.n * c.hidden, dtype),
                   weights = random_values(random, c.n * c.k, DType::float32);
      const std::vector<int32_t> ids = routed(random, c.n, c.k, c.experts, c.skew % 2);
      std::vector<Floats> sums;
      for (Side* const side : {&pair.cpu, &pair.gpu}) {
        const ExpertSlots slots = slots_of(*side, local_slot);
        const Matrix w13 = gate_up.on(side->device(), Matrix::Kind::expert_gate_up, used),
                     w2 = down.on(side->device(), Matrix::Kind::expert_down, used);
        const Tensor out = side->poisoned(c.n, c.hidden);
        side->device().expert_ffn({.in = {side->put(x, c.n, c.hidden), side->put_ints(ids),
                                          side->put(weights, c.n, c.k, DType::float32)},
                                   .gate_up = &w13,
                                   .down = &w2,
                                   .slots = &slots,
                                   .out = out});
        sums.push_back(side->get(out));
      }
      // Of one token few values lie at a tie, and how many do varies.
      CHECK(normalised_error(sums[1], sums[0]) < (c.n == 1 ? 1.5 : 1) * expert_tolerance(dtype));
    }
  });
}

TEST_CASE("gpu bits: rows of products with FP8 weights alone and among others", "[gpu][fp8]") {
  constexpr int64_t kRows = 1300, kIn = 1032;
  using Part = std::pair<int64_t, int64_t>;
  for_each_dtype([](DType dtype, std::mt19937_64& random) {
    Pair pair(dtype);
    Side& side = pair.gpu;
    const auto bits_of = [&](const Tensor& tensor) {
      std::vector<uint16_t> bits(static_cast<size_t>(tensor.rows * tensor.cols));
      side.device().copy_to_host(bits.data(), tensor.data, tensor.bytes());
      return bits;
    };
    /// `op(begin, end, out)` of all rows, then of some.
    const auto check = [&](int64_t cols, std::span<const Part> parts, const auto& op) {
      const Tensor whole = side.poisoned(kRows, cols);
      op(0, kRows, whole);
      const std::vector<uint16_t> expected = bits_of(whole);
      for (const auto& [begin, end] : parts) {
        CAPTURE(begin, end);
        const Tensor part = side.poisoned(end - begin, cols);
        op(begin, end, part);
        const std::vector<uint16_t> bits = bits_of(part);
        CHECK(std::equal(bits.begin(), bits.end(), expected.begin() + begin * cols));
      }
    };
    const Tensor x = side.put(random_values(random, kRows * kIn, dtype), kRows, kIn);
    for (const int64_t block_rows : {1, 128}) {
      CAPTURE(block_rows);
      // Widths that take each of the tilings; parts of whole and of cut tiles.
      constexpr Part kParts[] = {{0, 1}, {1299, 1300}, {13, 15}, {100, 164}, {100, 165}, {3, 259}, {1, 1300}};
      for (const int64_t out_features : {40, 1536, 5128}) {
        CAPTURE(out_features);
        const Matrix w =
            Stored(random, out_features, kIn, block_rows, 128).on(side.device(), Matrix::Kind::plain, 1);
        check(out_features, kParts, [&](int64_t begin, int64_t end, const Tensor& out) {
          side.device().linear(x.slice(begin, end), w, nullptr, out);
        });
      }
      // All rows in one pass, some by parts that another kernel sums.
      constexpr int64_t kTreeIn = 1024, kTreeOut = 328;
      const Tensor wide = side.put(random_values(random, kRows * kTreeIn, dtype), kRows, kTreeIn);
      const Matrix tree =
          Stored(random, kTreeOut, kTreeIn, block_rows, 128).on(side.device(), Matrix::Kind::plain, 1);
      for (const int32_t chunks : {2, 4, 8}) {
        CAPTURE(chunks);
        REQUIRE(fp8_linear_takes_tree(kRows, chunks));
        REQUIRE_FALSE(fp8_linear_takes_tree(256, chunks));
        check(kTreeOut, kParts, [&](int64_t begin, int64_t end, const Tensor& out) {
          side.device().linear_tree(wide.slice(begin, end), tree, chunks, out);
        });
      }
      constexpr int64_t kWidth = 136, k = 3;
      constexpr int32_t kExperts = 8;
      std::vector<int32_t> local_slot(kExperts);
      std::iota(local_slot.begin(), local_slot.end(), 0);
      const ExpertSlots slots = slots_of(side, local_slot);
      const Matrix gate_up = Stored(random, kExperts * 2 * kWidth, kIn, block_rows == 1 ? 1 : 8, 128)
                                 .on(side.device(), Matrix::Kind::expert_gate_up, kExperts),
                   down = Stored(random, kExperts * kIn, kWidth, block_rows == 1 ? 1 : 8, 128)
                              .on(side.device(), Matrix::Kind::expert_down, kExperts);
      const auto max_rows = [](int64_t n) { return fp8_grouped_gemm_tiling(n, k, kExperts).max_rows; };
      REQUIRE(max_rows(1) == 64);
      REQUIRE(max_rows(256) == 128);
      constexpr Part kTokens[] = {{0, 1}, {1299, 1300}, {700, 717}, {40, 140}, {3, 259}, {299, 1000}};
      for (const int skew : {0, 1}) {
        CAPTURE(skew);
        const std::vector<int32_t> all = routed(random, kRows, k, kExperts, skew);
        const Tensor weights =
            side.put(random_values(random, kRows * k, DType::float32), kRows, k, DType::float32);
        check(kIn, kTokens, [&](int64_t begin, int64_t end, const Tensor& out) {
          const std::vector<int32_t> ids(all.begin() + begin * k, all.begin() + end * k);
          side.device().expert_ffn(
              {.in = {x.slice(begin, end), side.put_ints(ids), weights.slice(begin, end)},
               .gate_up = &gate_up,
               .down = &down,
               .slots = &slots,
               .out = out});
        });
      }
    }
  });
}
