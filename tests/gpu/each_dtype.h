#pragma once
#include <random>

#include "moerun/dtype.h"
#include "tests/catch.h"

namespace moerun::test {

/// Runs `body(dtype, random)` for each 16-bit type with a fresh seed that a failure shows.
template <typename Body>
void for_each_dtype(Body body) {
  for (const DType dtype : {DType::bfloat16, DType::float16}) {
    const uint64_t seed = std::random_device()();
    INFO("dtype " << name_of(dtype) << ", seed " << seed);
    std::mt19937_64 random(seed);
    body(dtype, random);
  }
}

}  // namespace moerun::test
