#include "device/cuda/cuda_fp8.h"

#include <algorithm>

#include "kernels/cuda/fp8_linear.h"
#include "moerun/fp8.h"

namespace moerun {

namespace {

size_t row_bytes(int64_t cols) {
  return static_cast<size_t>(scale_groups(cols)) * (static_cast<size_t>(kScaleGroup) + sizeof(float));
}

size_t room_bytes(const StepLimits& limits) {
  const int64_t cols = std::max(limits.hidden_size, limits.num_heads * limits.head_dim);
  const int64_t rows = std::max({limits.max_num_batched_tokens, limits.max_routed_tokens, int64_t{1}});
  return fp8_rows_bytes(rows, cols);
}

}  // namespace

Fp8Rows fp8_rows_in(void* room, int64_t rows, int64_t cols) {
  auto* const values = static_cast<uint8_t*>(room);
  return {values, reinterpret_cast<float*>(values + rows * scale_groups(cols) * kScaleGroup)};
}

size_t fp8_rows_bytes(int64_t rows, int64_t cols) { return static_cast<size_t>(rows) * row_bytes(cols); }

Fp8Products::Fp8Products(Arena& arena, cudaStream_t stream, DType dtype, int32_t num_sms,
                         const StepLimits& limits)
    : stream_(stream),
      dtype_(dtype),
      num_sms_(num_sms),
      bytes_(room_bytes(limits)),
      room_(arena.allocate(bytes_, "workspace")) {}

int64_t Fp8Products::rows_at_once(int64_t cols) const {
  return static_cast<int64_t>(bytes_ / row_bytes(cols));
}

Fp8Rows Fp8Products::quantise(const Tensor& x, bool after_kernel) {
  if (x.rows > rows_at_once(x.cols))
    throw Error(fmt::format("{} rows of {} are quantised at once; room was made for {}", x.rows, x.cols,
                            rows_at_once(x.cols)));
  const Fp8Rows out = fp8_rows_in(room_, x.rows, x.cols);
  launch_fp8_quantise({.dtype = dtype_,
                       .x = x.data,
                       .rows = x.rows,
                       .cols = x.cols,
                       .out = out,
                       .after_kernel = after_kernel},
                      stream_);
  return out;
}

void Fp8Products::run(const Tensor& x, const Product& product, void* out) {
  launch_fp8_linear({.dtype = dtype_,
                     .x = quantise(x, false),  // it may come from attention, or from other ranks
                     .w = static_cast<const uint8_t*>(product.w.data),
                     .bias = product.bias ? product.bias->data : nullptr,
                     .out = out,
                     .rows = x.rows,
                     .out_features = product.w.out_features,
                     .in_features = product.w.in_features,
                     .parts = product.parts,
                     .tree = product.tree,
                     .num_sms = num_sms_},
                    stream_);
}

void Fp8Products::run_all(const Tensor& x, const Product& product, const Tensor& out) {
  if (out.dtype != dtype_)
    throw Error(fmt::format("a product with FP8 weights is rounded to {}, not {}", name_of(dtype_),
                            name_of(out.dtype)));
  const int64_t at_once = std::max<int64_t>(rows_at_once(x.cols), 1);
  for (int64_t begin = 0; begin < x.rows; begin += at_once) {
    const int64_t end = std::min(x.rows, begin + at_once);
    run(x.slice(begin, end), product, out.slice(begin, end).data);
  }
}

void Fp8Products::linear(const Tensor& x, const Matrix& w, const Tensor* bias, const Tensor& out) {
  run_all(x, {.w = w, .bias = bias}, out);
}

bool Fp8Products::takes_tree(int64_t rows, int32_t chunks) { return fp8_linear_takes_tree(rows, chunks); }

void Fp8Products::linear_tree(const Tensor& x, const Matrix& w, int32_t chunks, const Tensor& out) {
  run_all(x, {.w = w, .parts = chunks, .tree = true}, out);
}

void Fp8Products::linear_in_parts(const Tensor& x, const Matrix& w, int32_t parts, void* out) {
  run(x, {.w = w, .parts = parts}, out);
}

}  // namespace moerun
