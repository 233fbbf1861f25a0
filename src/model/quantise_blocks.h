#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "moerun/device.h"

namespace moerun {

/// A matrix in e4m3 with a scale for each block of 128 × 128, as published FP8 checkpoints have it.
struct BlockMatrix {
  std::vector<uint8_t> values;  ///< [rows, cols]
  std::vector<float> scales;    ///< [scale_rows, scale_cols]
  int64_t scale_rows = 0, scale_cols = 0;
};

/// Divides each block by its largest magnitude over 448 (1 where all are zero) and rounds to e4m3. Throws
/// BadInput that names the tensor where a weight is not finite. Uses all threads.
BlockMatrix quantise_blocks(const HostMatrix& matrix, const std::string& name);

}  // namespace moerun
