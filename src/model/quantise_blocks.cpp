#include "model/quantise_blocks.h"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <cmath>

#include "moerun/error.h"
#include "moerun/fp8.h"
#include "moerun/half.h"

namespace moerun {

namespace {

/// One block: rows [row, row_end) and columns [col, col_end). False where a weight is not finite.
bool quantise_block(const HostMatrix& in, int64_t row, int64_t col, BlockMatrix& out) {
  const int64_t row_end = std::min(row + kScaleGroup, in.rows),
                col_end = std::min(col + kScaleGroup, in.cols);
  const auto value = [&](int64_t r, int64_t c) {
    return load_float(in.data, in.dtype, r * in.row_stride + c);
  };
  float amax = 0;
  bool finite = true;
  for (int64_t r = row; r < row_end; ++r)
    for (int64_t c = col; c < col_end; ++c) {
      const float magnitude = std::fabs(value(r, c));
      amax = std::max(amax, magnitude);
      finite = finite && std::isfinite(magnitude);
    }
  const float scale = activation_scale(amax);
  for (int64_t r = row; r < row_end; ++r)
    for (int64_t c = col; c < col_end; ++c)
      out.values[static_cast<size_t>(r * in.cols + c)] = float_to_e4m3(value(r, c) / scale);
  out.scales[static_cast<size_t>(row / kScaleGroup * out.scale_cols + col / kScaleGroup)] = scale;
  return finite;
}

}  // namespace

BlockMatrix quantise_blocks(const HostMatrix& matrix, const std::string& name) {
  BlockMatrix out{.scale_rows = scale_groups(matrix.rows), .scale_cols = scale_groups(matrix.cols)};
  out.values.resize(static_cast<size_t>(matrix.rows * matrix.cols));
  out.scales.resize(static_cast<size_t>(out.scale_rows * out.scale_cols));
  std::atomic<bool> finite = true;
#pragma omp parallel for schedule(static)
  for (int64_t row = 0; row < matrix.rows; row += kScaleGroup)
    for (int64_t col = 0; col < matrix.cols; col += kScaleGroup)
      if (!quantise_block(matrix, row, col, out)) finite = false;
  if (!finite) throw BadInput(fmt::format("tensor {} has a weight that is not finite", name));
  return out;
}

}  // namespace moerun
