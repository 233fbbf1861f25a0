#include "kernels/cuda/packed_weight.h"

#include <cstddef>
#include <set>
#include <vector>

#include "tests/catch.h"

using namespace moerun;

TEST_CASE("a weight in e4m3 packs each element and each scale to a place of its own", "[packed]") {
  struct Size {
    int64_t rows, cols, blocks;
  };
  for (const auto& [rows, cols, blocks] : {Size{1, 1, 1}, {128, 128, 1}, {129, 128, 2}, {200, 300, 6}}) {
    CAPTURE(rows, cols);
    const Fp8PackedWeight packed{rows, cols};
    CHECK(packed.blocks() == blocks);
    CHECK(packed.bytes() == blocks * (128 * 128 + 128 * 4 + 16));
    std::vector<char> taken(static_cast<size_t>(packed.bytes()), 0);
    const auto take = [&](int64_t at, int64_t bytes) {
      for (int64_t i = at; i < at + bytes; ++i) {
        REQUIRE(i < packed.bytes());
        REQUIRE_FALSE(taken[static_cast<size_t>(i)]);
        taken[static_cast<size_t>(i)] = 1;
      }
    };
    for (int64_t row = 0; row < rows; ++row)
      for (int64_t col = 0; col < cols; ++col) {
        take(packed.offset(row, col), 1);
        if (col % 128 == 0) take(packed.scale_offset(row, col), 4);
      }
  }
}

TEST_CASE("a block of a weight in e4m3 lies as the tensor cores' swizzle of 128 bytes wants it", "[packed]") {
  const Fp8PackedWeight packed{256, 256};
  // Row r is 128 bytes, whose 16-byte chunk c is at c ^ (r % 8); blocks follow each other along the columns.
  CHECK(packed.offset(0, 0) == 0);
  CHECK(packed.offset(0, 17) == 17);
  CHECK(packed.offset(1, 0) == 128 + 16);
  CHECK(packed.offset(9, 37) == 9 * 128 + (2 ^ 1) * 16 + 5);
  CHECK(packed.offset(0, 128) == Fp8PackedWeight::kBlockBytes);
  CHECK(packed.offset(128, 0) == 2 * Fp8PackedWeight::kBlockBytes);
  CHECK(packed.scale_offset(3, 128) == Fp8PackedWeight::kBlockBytes + 128 * 128 + 3 * 4);
  CHECK(offsetof(Fp8BlockScales, even) == 512);
}
