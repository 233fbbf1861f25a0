#include "kernels/cpu/gemm_fp8.h"

#include <algorithm>
#include <cmath>

#include "kernels/cpu/simd.h"
#include "moerun/half.h"

namespace moerun::cpu {

namespace {

MOERUN_CLONES void quantise_row(const float* x, int64_t in_features, float* values, float* scales) {
  for (int64_t begin = 0; begin < in_features; begin += kScaleGroup) {
    const int64_t end = std::min(begin + kScaleGroup, in_features);
    float amax = 0;
    for (int64_t k = begin; k < end; ++k) amax = std::max(amax, std::fabs(x[k]));
    const float scale = activation_scale(amax);
    for (int64_t k = begin; k < end; ++k) values[k] = e4m3_to_float(float_to_e4m3(x[k] / scale));
    scales[begin / kScaleGroup] = scale;
  }
}

/// A group's values of a panel as floats: [count, kPanel]. None is NaN (they were checked when they were
/// read).
MOERUN_INLINE void widen(const uint8_t* in, int64_t count, float* out) {
#pragma omp simd
  for (int64_t i = 0; i < count; ++i) out[i] = finite_e4m3_to_float(in[i]);
}

/// What all rows of a panel have in common for one group.
struct Group {
  int64_t first = 0, count = 0, index = 0;  // along K
  const float* weights = nullptr;           // [count, kPanel]
  const float* scales = nullptr;            // [kPanel]
};

/// Adds a group's product to the sums of kRows rows, sums[r·kPanel…].
template <int kRows>
MOERUN_INLINE void add_group(const Fp8GemmArgs& args, const Group& group, int64_t row, float* sums) {
  const int64_t groups = scale_groups(args.in_features);
  const float* const x = args.x->values.data() + row * args.in_features + group.first;
  float sum[kRows][kPanel] = {};
  for (int64_t k = 0; k < group.count; ++k)
    for (int r = 0; r < kRows; ++r) {
      const float v = x[r * args.in_features + k];
#pragma omp simd
      for (int j = 0; j < kPanel; ++j)
        sum[r][j] = __builtin_fmaf(v, group.weights[k * kPanel + j], sum[r][j]);
    }
  for (int r = 0; r < kRows; ++r) {
    const float scale = args.x->scales[static_cast<size_t>((row + r) * groups + group.index)];
#pragma omp simd
    for (int j = 0; j < kPanel; ++j)
      sums[r * kPanel + j] = __builtin_fmaf(sum[r][j], group.scales[j] * scale, sums[r * kPanel + j]);
  }
}

/// All rows against one panel.
MOERUN_CLONES void gemm_panel(const Fp8GemmArgs& args, int64_t panel) {
  constexpr int64_t kMostRows = 64;
  const int64_t columns = std::min(kPanel, args.n - panel * kPanel);
  const uint8_t* const values = args.w.values + panel * kPanel * args.in_features;
  const float* const scales = args.w.scales + panel * kPanel * scale_groups(args.in_features);
  float weights[kScaleGroup * kPanel];
  float sums[kMostRows * kPanel];
  for (int64_t begin = 0; begin < args.m; begin += kMostRows) {
    const int64_t rows = std::min(kMostRows, args.m - begin);
    std::fill_n(sums, rows * kPanel, 0.0F);
    for (int64_t k = args.k_begin; k < args.k_end; k += kScaleGroup) {
      const Group group{.first = k,
                        .count = std::min(kScaleGroup, args.k_end - k),
                        .index = k / kScaleGroup,
                        .weights = weights,
                        .scales = scales + k / kScaleGroup * kPanel};
      widen(values + k * kPanel, group.count * kPanel, weights);
      int64_t r = 0;
      for (; r + 4 <= rows; r += 4) add_group<4>(args, group, begin + r, sums + r * kPanel);
      for (; r < rows; ++r) add_group<1>(args, group, begin + r, sums + r * kPanel);
    }
    for (int64_t r = 0; r < rows; ++r)
      std::copy_n(sums + r * kPanel, columns, args.out + (begin + r) * args.n + panel * kPanel);
  }
}

}  // namespace

void quantise_rows(const float* x, int64_t m, int64_t in_features, QuantisedRows& out) {
  const int64_t groups = scale_groups(in_features);
  out.values.resize(static_cast<size_t>(m * in_features));
  out.scales.resize(static_cast<size_t>(m * groups));
#pragma omp parallel for schedule(static) if (m * in_features > 1 << 16)
  for (int64_t row = 0; row < m; ++row)
    quantise_row(x + row * in_features, in_features, out.values.data() + row * in_features,
                 out.scales.data() + row * groups);
}

void gemm_fp8(const Fp8GemmArgs& args) {
  const int64_t panels = (args.n + kPanel - 1) / kPanel;
#pragma omp parallel for schedule(static) if (args.m * args.n * args.in_features > 1 << 20)
  for (int64_t panel = 0; panel < panels; ++panel) gemm_panel(args, panel);
}

}  // namespace moerun::cpu
