// linear_tree against what it means, to the bit: ordered products of K's chunks, then their binary tree.
#include <algorithm>
#include <cstring>

#include "device/cuda/cuda_check.h"
#include "device/cuda/cuda_memory.h"
#include "device/cuda_device.h"
#include "kernels/cuda/elementwise.h"
#include "kernels/cuda/ordered_gemm.h"
#include "kernels/cuda/tree_gemm_tiling.h"
#include "tests/gpu/each_dtype.h"
#include "tests/gpu/side.h"

using namespace moerun;
using namespace moerun::test;

namespace {

constexpr int64_t kMostRows = 4100, kBeyond = 300;  // rows; a tile is at most 256
constexpr char kPoison = '\xff';                    // of every byte: NaN in both types

std::vector<char> bytes_of(Device& device, const Tensor& tensor) {
  std::vector<char> bytes(tensor.bytes());
  device.copy_to_host(bytes.data(), tensor.data, bytes.size());
  return bytes;
}

void by_definition(Tensor x, const Matrix& w, int32_t chunks, Tensor parts, Tensor out) {
  const int64_t k = w.in_features / chunks;
  const Stream stream;
  for (int32_t c = 0; c < chunks; ++c)
    launch_ordered_gemm({.dtype = x.dtype,
                         .out_dtype = x.dtype,
                         .x = static_cast<const char*>(x.data) + c * k * 2,
                         .w = static_cast<const char*>(w.data) + c * k * 2,
                         .out = parts.slice(c * x.rows, (c + 1) * x.rows).data,
                         .ldx = w.in_features,
                         .ldw = w.in_features,
                         .rows = x.rows,
                         .out_features = w.out_features,
                         .in_features = k},
                        stream);
  launch_tree_sum({.dtype = x.dtype,
                   .shards = parts.data,
                   .out = out.data,
                   .count = out.rows * out.cols,
                   .num_shards = chunks},
                  stream);
  CUDA_CHECK(cudaStreamSynchronize(stream));
}

/// The fewest and the most rows of a product that tree_gemm cuts into tiles of each width. Fewer
/// multiprocessors than an H100 SXM's never choose the narrowest ones.
std::vector<int64_t> rows_of_all_widths(int64_t out_features) {
  int sms = 0;
  CUDA_CHECK(cudaDeviceGetAttribute(&sms, cudaDevAttrMultiProcessorCount, 0));
  std::vector<int64_t> all;
  for (const int32_t width : kTreeGemmWidths) {
    std::vector<int64_t> these;
    for (int64_t rows = kTreeGemmMinRows; rows <= kMostRows; ++rows)
      if (tree_gemm_width(rows, out_features, sms) == width) these.push_back(rows);
    CAPTURE(width);
    if (these.empty()) {
      REQUIRE(sms < 132);
      WARN("tiles of " << width << " tokens are not chosen on " << sms << " multiprocessors: not tested");
      continue;
    }
    all.push_back(these.front());
    all.push_back(these.back());
  }
  return all;
}

}  // namespace

TEST_CASE("gpu bits: linear_tree is the tree of its chunks' ordered products", "[gpu]") {
  struct Case {
    int64_t out_features, chunk;
    int32_t chunks;
    std::vector<int64_t> rows;
  };
  const std::vector<int64_t> edges{
      1, kTreeGemmMinRows - 1, kTreeGemmMinRows, kTreeGemmMinRows + 1, 570, 1024, 1025, 1690, 2049};
  for_each_dtype([&](DType dtype, std::mt19937_64& random) {
    const auto device = make_cuda_device({.dtype = dtype, .gpu_memory_utilization = 0.2});
    device->reserve({.max_num_batched_tokens = kMostRows,
                     .max_num_seqs = 1,
                     .max_model_len = 64,
                     .max_logit_rows = 1,
                     .num_heads = 1,
                     .num_kv_heads = 1,
                     .head_dim = 64,
                     .hidden_size = 2048,
                     .vocab_size = 64});
    Side side(*device);
    for (const Case& c : {Case{2048, 64, 4, rows_of_all_widths(2048)}, Case{2048, 64, 2, edges},
                          Case{328, 1024, 4, edges}, Case{1000, 192, 2, {kTreeGemmMinRows, 1690, kMostRows}},
                          Case{2048, 1024, 4, {kTreeGemmMinRows - 1, 570, 1690}}, Case{8, 64, 2, {570, 3001}},
                          Case{264, 64, 8, edges}, Case{2048, 512, 8, rows_of_all_widths(2048)},
                          Case{264, 64, 16, {1, 570}}}) {
      const int64_t in_features = c.chunk * c.chunks;
      CAPTURE(c.out_features, in_features, c.chunks);
      const int64_t most = *std::max_element(c.rows.begin(), c.rows.end()), first = most / 7;
      const Tensor x =
          side.put(random_values(random, (first + most) * in_features, dtype), first + most, in_features);
      const Matrix w = side.matrix(Matrix::Kind::plain, 1, c.out_features, in_features,
                                   random_values(random, c.out_features * in_features, dtype, 0.05F));
      const auto room = [&](int64_t rows) { return device->tensor(rows, c.out_features, dtype, "test"); };
      const Tensor parts = room(c.chunks * most), expected = room(most), out = room(most + kBeyond);
      for (const int64_t rows : c.rows) {
        CAPTURE(rows);
        const std::vector<char> poison(out.bytes(), kPoison);
        device->copy_to_device(expected.data, poison.data(), expected.bytes());
        device->copy_to_device(out.data, poison.data(), out.bytes());
        device->synchronize();
        by_definition(x.slice(first, first + rows), w, c.chunks, parts, expected.first(rows));
        device->linear_tree(x.slice(first, first + rows), w, c.chunks, out.first(rows));
        const std::vector<char> all = bytes_of(*device, out), right = bytes_of(*device, expected.first(rows));
        CHECK(std::memcmp(all.data(), right.data(), right.size()) == 0);
        CHECK(std::isfinite(side.get(expected.slice(rows - 1, rows)).back()));
        CHECK(std::all_of(all.begin() + static_cast<std::ptrdiff_t>(right.size()), all.end(),
                          [](char byte) { return byte == kPoison; }));
      }
    }
  });
}
