#include "kernels/cpu/gemm.h"

#include <algorithm>

#include "kernels/cpu/simd.h"

namespace moerun::cpu {

namespace {

/// kRows rows against one panel, all sums in registers.
template <int kRows>
MOERUN_INLINE void tile(const GemmArgs& args, int64_t row, const float* panel, float* out, int64_t columns) {
  float sum[kRows][kPanel] = {};
  const float* const x = args.x + row * args.ldx;
  for (int64_t k = args.k_begin; k < args.k_end; ++k)
    for (int r = 0; r < kRows; ++r) {
      const float v = x[r * args.ldx + k];
#pragma omp simd
      for (int j = 0; j < kPanel; ++j) sum[r][j] = __builtin_fmaf(v, panel[k * kPanel + j], sum[r][j]);
    }
  for (int r = 0; r < kRows; ++r)
    for (int64_t j = 0; j < columns; ++j) out[(row + r) * args.ldo + j] = sum[r][j];
}

MOERUN_CLONES void gemm_panel(const GemmArgs& args, int64_t index) {
  const float* const panel = args.w + index * kPanel * args.in_features;
  float* const out = args.out + index * kPanel;
  const int64_t columns = std::min(kPanel, args.n - index * kPanel);
  int64_t row = 0;
  for (; row + 8 <= args.m; row += 8) tile<8>(args, row, panel, out, columns);
  for (; row + 4 <= args.m; row += 4) tile<4>(args, row, panel, out, columns);
  for (; row < args.m; ++row) tile<1>(args, row, panel, out, columns);
}

}  // namespace

void gemm(const GemmArgs& args) {
  const int64_t panels = (args.n + kPanel - 1) / kPanel;
#pragma omp parallel for schedule(static) if (args.m * args.n * args.in_features > 1 << 20)
  for (int64_t index = 0; index < panels; ++index) gemm_panel(args, index);
}

}  // namespace moerun::cpu
