#pragma once
// Where tree_gemm is taken and how it cuts its product. Plain functions, which tests on the host call too;
// what they say moves time, not bits.
#include <array>
#include <cstdint>

namespace moerun {

/// Elements of K that a stage of the kernel holds: a chunk is whole stages.
inline constexpr int32_t kTreeGemmBlockK = 64;
/// At 284 rows cuBLASLt in parts took less time, at 570 more (kernels/README.md).
inline constexpr int64_t kTreeGemmMinRows = 512;

/// Whether launch_tree_gemm computes [rows, in_features]·[out_features, in_features]ᵀ in `chunks` parts of K.
/// Everything else goes to cuBLASLt in parts.
constexpr bool tree_gemm_takes(int64_t rows, int64_t out_features, int64_t in_features, int32_t chunks) {
  return (chunks == 2 || chunks == 4 || chunks == 8) && in_features % (chunks * kTreeGemmBlockK) == 0 &&
         out_features % 8 == 0 && rows >= kTreeGemmMinRows;
}

inline constexpr int32_t kTreeGemmFeatures = 128;  ///< of a tile
/// Tokens of a tile: one wave of 128 tiles of a product with 2,048 features is 8 of them.
inline constexpr std::array<int32_t, 8> kTreeGemmWidths{72, 96, 128, 160, 192, 216, 240, 256};

/// Blocks of a cluster: neighbours along the tokens, which share the weights. It pays where a tile has fewer
/// tokens than features.
constexpr int32_t tree_gemm_cluster(int32_t width) { return width <= 128 ? 2 : 1; }

/// Clusters that the product makes.
constexpr int64_t tree_gemm_clusters(int64_t rows, int64_t out_features, int32_t width) {
  const int64_t tokens = int64_t{width} * tree_gemm_cluster(width);
  return (rows + tokens - 1) / tokens * ((out_features + kTreeGemmFeatures - 1) / kTreeGemmFeatures);
}

/// The width with the least cost on `num_sms` multiprocessors (at least a cluster), a block on each: waves
/// times what a wave takes, in the time of one column of a tile.
constexpr int32_t tree_gemm_width(int64_t rows, int64_t out_features, int32_t num_sms) {
  constexpr int64_t kFillAndStore = 48;  // of a wave, beside its columns: a fit to the times at K = 4,096
  int32_t best = 0;
  int64_t least = 0;
  for (const int32_t width : kTreeGemmWidths) {
    const int64_t at_once = num_sms / tree_gemm_cluster(width);
    const int64_t waves = (tree_gemm_clusters(rows, out_features, width) + at_once - 1) / at_once;
    const int64_t cost = waves * (width + kFillAndStore);
    if (best == 0 || cost < least) best = width, least = cost;
  }
  return best;
}

}  // namespace moerun
