#pragma once
#include <cuda_runtime_api.h>

#include <cstdint>

#include "device/cuda/cuda_memory.h"
#include "kernels/cuda/fp8_quantise.h"
#include "moerun/device.h"

namespace moerun {

/// Products with weights in e4m3 (moerun/fp8.h), and the room for the activations that they quantise. Thread
/// contract: the engine thread.
class Fp8Products {
 public:
  Fp8Products(Arena& arena, cudaStream_t stream, DType dtype, int32_t num_sms, const StepLimits& limits);

  /// x, quantised, until the next call. What made x, or what came between, is a kernel of the same stream.
  /// Throws Error where there is no room for as many rows.
  Fp8Rows quantise(const Tensor& x) { return quantise(x, true); }
  /// Rows of so many elements that there is room for.
  int64_t rows_at_once(int64_t cols) const;

  /// out = x·Wᵀ + bias.
  void linear(const Tensor& x, const Matrix& w, const Tensor* bias, const Tensor& out);
  /// Whether linear_tree is computed in one pass; else linear_in_parts and a sum are.
  static bool takes_tree(int64_t rows, int32_t chunks);
  /// Device::linear_tree.
  void linear_tree(const Tensor& x, const Matrix& w, int32_t chunks, const Tensor& out);
  /// out [parts, x.rows, out_features]: the products of `parts` equal parts of K. At most rows_at_once rows.
  void linear_in_parts(const Tensor& x, const Matrix& w, int32_t parts, void* out);

 private:
  struct Product {
    const Matrix& w;
    const Tensor* bias = nullptr;
    int32_t parts = 1;
    bool tree = false;
  };
  Fp8Rows quantise(const Tensor& x, bool after_kernel);
  /// At most rows_at_once rows.
  void run(const Tensor& x, const Product& product, void* out);
  /// As many rows at a time as there is room for.
  void run_all(const Tensor& x, const Product& product, const Tensor& out);

  cudaStream_t stream_;
  DType dtype_;
  int32_t num_sms_;
  size_t bytes_;
  void* room_;
};

/// `rows` rows of `cols` elements laid out in `room`, and the bytes that they take.
Fp8Rows fp8_rows_in(void* room, int64_t rows, int64_t cols);
size_t fp8_rows_bytes(int64_t rows, int64_t cols);

}  // namespace moerun
