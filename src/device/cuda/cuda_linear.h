#pragma once
#include <cublasLt.h>

#include <compare>
#include <cstdint>
#include <map>
#include <memory>

#include "device/cuda/cuda_memory.h"
#include "moerun/device.h"

namespace moerun {

/// Matrix products by cuBLASLt whose bits do not depend on the number of rows. On this chip that takes one
/// thing: an accumulator an element that ascends along K. So the library's heuristic is asked once for each
/// shape, with rows rounded up to a class, for algorithms that do not split K; the first one whose bits are
/// those of launch_ordered_gemm, on the rows at hand, is kept. Where none is, launch_ordered_gemm computes.
/// Thread contract: the engine thread.
class LinearProducts {
 public:
  LinearProducts(Arena& arena, cudaStream_t stream, DType dtype);
  ~LinearProducts();
  LinearProducts(const LinearProducts&) = delete;
  LinearProducts& operator=(const LinearProducts&) = delete;

  /// out[b] = x[:, columns of part b]·W[:, columns of part b]ᵀ for `parts` equal parts of K; with one part
  /// the whole product.
  struct Product {
    const void* x = nullptr;     ///< [rows, in_features]
    const void* w = nullptr;     ///< [out_features, in_features]
    const void* bias = nullptr;  ///< optional [out_features]
    void* out = nullptr;         ///< [parts, rows, out_features]
    DType out_dtype = DType::bfloat16;
    int64_t rows = 0, out_features = 0, in_features = 0;
    int32_t parts = 1;
  };
  /// Throws Error. The first product of a class waits for the GPU, so it cannot be recorded into a graph.
  void run(const Product& product);

  /// Classes of shapes so far, and those of them that the library computes.
  struct Counts {
    int64_t classes = 0, by_library = 0;
  };
  Counts counts() const;

 private:
  struct Shape {
    int64_t row_class, out_features, in_features;
    int32_t parts;
    DType out_dtype;
    bool bias;
    auto operator<=>(const Shape&) const = default;
  };
  struct Choice {
    bool library = false;  ///< else launch_ordered_gemm
    cublasLtMatmulAlgo_t algorithm{};
  };
  struct Description;

  Choice choose(const Product& product, const Shape& shape);
  bool launch(const Product& product, const cublasLtMatmulAlgo_t& algorithm);
  void launch_ordered(const Product& product, bool compare);
  bool right_bits(const Product& product);

  cudaStream_t stream_;
  DType dtype_;
  cublasLtHandle_t handle_ = nullptr;
  void* workspace_;
  uint32_t* differing_;  ///< [1] on the device
  std::map<Shape, Choice> choices_;
};

}  // namespace moerun
