#include "kernels/cuda/tree_gemm_tiling.h"

#include "tests/catch.h"

using namespace moerun;

TEST_CASE("tree_gemm takes whole stages of two, four or eight chunks", "[tree_gemm]") {
  CHECK(tree_gemm_takes(kTreeGemmMinRows, 2048, 4096, 4));
  CHECK(tree_gemm_takes(1690, 2048, 2048, 2));
  CHECK(tree_gemm_takes(1690, 8, 256, 4));
  CHECK(tree_gemm_takes(1690, 2048, 4096, 8));
  CHECK_FALSE(tree_gemm_takes(kTreeGemmMinRows - 1, 2048, 4096, 4));
  CHECK_FALSE(tree_gemm_takes(1690, 2052, 4096, 4));  // rows of the output that are not aligned
  CHECK_FALSE(tree_gemm_takes(1690, 2048, 4096 + 128, 4));
  CHECK_FALSE(tree_gemm_takes(1690, 2048, 128, 4));
  for (const int32_t chunks : {1, 6, 16}) CHECK_FALSE(tree_gemm_takes(1690, 2048, 4096, chunks));
}

TEST_CASE("tree_gemm's width fills a wave of the GPU with as few columns as there are", "[tree_gemm]") {
  constexpr int32_t kSms = 132;
  // 16 tiles along 2,048 features: 8 tokens' tiles at once, and no wider than they need to be.
  for (const auto& [rows, width] : {std::pair<int64_t, int32_t>{512, 72},
                                    {576, 72},
                                    {577, 96},
                                    {1024, 128},
                                    {1025, 160},
                                    {1690, 216},
                                    {1728, 216},
                                    {1729, 240},
                                    {1920, 240},
                                    {1921, 256},
                                    {2048, 256}}) {
    CAPTURE(rows);
    CHECK(tree_gemm_width(rows, 2048, kSms) == width);
    CHECK(tree_gemm_clusters(rows, 2048, width) * tree_gemm_cluster(width) <= kSms);
  }
  CHECK(tree_gemm_width(2049, 2048, kSms) == 160);  // two waves of 160 take less than two of 256
  CHECK(tree_gemm_width(4096, 2048, kSms) == 256);  // two waves of 256 less than three of 192
  CHECK(tree_gemm_width(1024, 1024, kSms) == 72);   // with half of the features twice as many tiles at once
  CHECK(tree_gemm_width(512, 2048, 2 * kSms) == 72);
  CHECK(tree_gemm_width(100'000, 2048, 2) == 256);
}

TEST_CASE("tree_gemm's clusters cover all rows and features once", "[tree_gemm]") {
  for (const int32_t width : kTreeGemmWidths) {
    const int64_t tokens = int64_t{width} * tree_gemm_cluster(width);
    for (const int64_t rows : {int64_t{1}, tokens - 1, tokens, tokens + 1, 3 * tokens})
      for (const int64_t features : {8, 128, 136, 2048}) {
        CAPTURE(width, rows, features);
        const int64_t clusters = tree_gemm_clusters(rows, features, width);
        const int64_t along_features = (features + kTreeGemmFeatures - 1) / kTreeGemmFeatures;
        REQUIRE(clusters % along_features == 0);
        CHECK(clusters / along_features * tokens >= rows);
        CHECK((clusters / along_features - 1) * tokens < rows);
      }
  }
}
