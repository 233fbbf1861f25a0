#pragma once
#include <cstdint>
#include <vector>

#include "kernels/cpu/gemm.h"
#include "moerun/fp8.h"

namespace moerun::cpu {

/// Rows of activations in e4m3 (moerun/fp8.h).
struct QuantisedRows {
  std::vector<float> values;  ///< [m, in_features] what the e4m3 values stand for, undivided
  std::vector<float> scales;  ///< [m, scale_groups(in_features)]
};

/// Quantises x [m, in_features] into `out`, which keeps its memory.
void quantise_rows(const float* x, int64_t m, int64_t in_features, QuantisedRows& out);

/// W [out_features, in_features] in e4m3: values packed in panels as packed_offset says, a byte each, and
/// scales [panels, scale_groups(in_features), kPanel].
struct Fp8Weight {
  const uint8_t* values = nullptr;
  const float* scales = nullptr;
};

/// Bytes of the values, and floats of the scales, of one W.
constexpr int64_t fp8_values(int64_t out_features, int64_t in_features) {
  return packed_floats(out_features, in_features);
}
constexpr int64_t fp8_scales(int64_t out_features, int64_t in_features) {
  return packed_floats(out_features, scale_groups(in_features));
}
/// Where the scale of a row and group is.
constexpr int64_t fp8_scale_offset(int64_t row, int64_t group, int64_t in_features) {
  return packed_offset(row, group, scale_groups(in_features));
}

struct Fp8GemmArgs {
  const QuantisedRows* x = nullptr;
  int64_t m = 0;
  Fp8Weight w;
  int64_t n = 0, in_features = 0;
  int64_t k_begin = 0, k_end = 0;  ///< whole groups; the last may end with the row
  float* out = nullptr;            ///< [m, n]
};

/// out = x[:, k_begin:k_end] · W[:, k_begin:k_end]ᵀ as moerun/fp8.h says. The bits depend neither on m nor on
/// panels, vector width or threads.
void gemm_fp8(const Fp8GemmArgs& args);

}  // namespace moerun::cpu
