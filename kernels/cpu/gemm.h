#pragma once
#include <cstdint>

namespace moerun::cpu {

/// Outputs that one packed panel computes together.
inline constexpr int64_t kPanel = 32;

/// Floats of a packed W [out_features, in_features]: panels of kPanel outputs, each [in_features, kPanel],
/// the last padded with zeros.
constexpr int64_t packed_floats(int64_t out_features, int64_t in_features) {
  return (out_features + kPanel - 1) / kPanel * kPanel * in_features;
}

/// Where element (row, col) of W is in its packing.
constexpr int64_t packed_offset(int64_t row, int64_t col, int64_t in_features) {
  return row / kPanel * kPanel * in_features + col * kPanel + row % kPanel;
}

struct GemmArgs {
  const float* x = nullptr;  ///< [m, ≥ k_end], row stride ldx
  int64_t ldx = 0, m = 0;
  const float* w = nullptr;  ///< packed W [n, in_features]
  int64_t n = 0, in_features = 0;
  int64_t k_begin = 0, k_end = 0;  ///< the part of the inner dimension that is summed
  float* out = nullptr;            ///< [m, n], row stride ldo
  int64_t ldo = 0;
};

/// out = x[:, k_begin:k_end] · W[:, k_begin:k_end]ᵀ. Every output is one chain of fused multiply-adds
/// ascending in k, starting from zero: the bits do not depend on m, on the panels, on vector width or
/// threads.
void gemm(const GemmArgs& args);

}  // namespace moerun::cpu
