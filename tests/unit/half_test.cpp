#include <cmath>
#include <random>

#include "moerun/half.h"
#include "tests/catch.h"

using namespace moerun;

TEST_CASE("every 16-bit float survives the way to float32 and back", "[half]") {
  for (uint32_t bits = 0; bits < 65536; ++bits) {
    const auto half = static_cast<uint16_t>(bits);
    const float f16 = float16_to_float(half);
    const float b16 = bfloat16_to_float(half);
    if (!std::isnan(f16)) CHECK(float_to_float16(f16) == half);
    if (!std::isnan(b16)) CHECK(float_to_bfloat16(b16) == half);
  }
  CHECK(float16_to_float(0x3c00) == 1.0f);
  CHECK(float16_to_float(0x7bff) == 65504.0f);
  CHECK(float16_to_float(0x0001) == std::ldexp(1.0f, -24));
  CHECK(std::isinf(float16_to_float(0xfc00)));
  CHECK(std::isnan(float16_to_float(float_to_float16(NAN))));
  CHECK(std::isnan(bfloat16_to_float(float_to_bfloat16(NAN))));
}

TEST_CASE("rounding goes to the nearest neighbour, ties to the even one", "[half]") {
  std::mt19937 random(11);
  const auto check = [](float value, auto to_half, auto to_float) {
    const uint16_t got = to_half(value);
    const double error = std::abs(double{to_float(got)} - double{value});
    for (const int step : {-1, 1}) {
      const auto neighbour = static_cast<uint16_t>(got + step);
      if (!std::isfinite(to_float(neighbour)) || (got & 0x7fff) == 0) continue;
      const double other = std::abs(double{to_float(neighbour)} - double{value});
      CHECK((error < other || (error == other && got % 2 == 0)));
    }
  };
  for (int i = 0; i < 100000; ++i) {
    const float value =
        std::ldexp(static_cast<float>(random()) / 4294967296.0f + 0.5f, static_cast<int>(random() % 42) - 26);
    if (value < 65504.0f) check(value, float_to_float16, float16_to_float);
    check(-value, float_to_bfloat16, bfloat16_to_float);
  }
  CHECK(float_to_float16(65519.9f) == 0x7bff);
  CHECK(float_to_float16(65520.0f) == 0x7c00);
  CHECK(float_to_float16(1.0f + std::ldexp(1.0f, -11)) == 0x3c00);  // a tie, to even
  CHECK(float_to_float16(std::ldexp(1.0f, -25)) == 0);              // a tie, to even
}
