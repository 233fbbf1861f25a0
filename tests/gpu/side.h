#pragma once
#include <bit>
#include <cmath>
#include <cstdint>
#include <random>
#include <vector>

#include "moerun/device.h"

namespace moerun::test {

using Floats = std::vector<float>;

inline float round_to(DType dtype, float x) {
  if (dtype == DType::float32) return x;
  if (dtype == DType::bfloat16) {
    const auto bits = std::bit_cast<uint32_t>(x);
    return std::bit_cast<float>((bits + 0x7FFFu + ((bits >> 16) & 1)) & 0xFFFF0000u);
  }
  return static_cast<float>(static_cast<_Float16>(x));
}

inline uint16_t narrow(DType dtype, float x) {
  if (dtype == DType::bfloat16)
    return static_cast<uint16_t>(std::bit_cast<uint32_t>(round_to(dtype, x)) >> 16);
  return std::bit_cast<uint16_t>(static_cast<_Float16>(x));
}

inline float widen(DType dtype, uint16_t x) {
  if (dtype == DType::bfloat16) return std::bit_cast<float>(static_cast<uint32_t>(x) << 16);
  return static_cast<float>(std::bit_cast<_Float16>(x));
}

/// Fresh random values that the 16-bit device and its float32 twin both hold exactly.
inline Floats random_values(std::mt19937_64& random, int64_t count, DType dtype, float scale = 1) {
  std::normal_distribution<float> normal(0, scale);
  Floats values(static_cast<size_t>(count));
  for (float& x : values) x = round_to(dtype, normal(random));
  return values;
}

/// ‖out − ref‖ / ‖ref‖; NaN anywhere comes out as NaN and passes no comparison.
inline double normalised_error(const Floats& out, const Floats& ref) {
  double difference = 0, norm = 0;
  for (size_t i = 0; i < ref.size(); ++i) {
    const double d = static_cast<double>(out[i]) - ref[i];
    difference += d * d;
    norm += static_cast<double>(ref[i]) * ref[i];
  }
  return std::sqrt(difference / (norm > 0 ? norm : 1));
}

/// One device of a comparison: what goes in is the same values, what comes out is float32.
class Side {
 public:
  explicit Side(Device& device) : device_(device) {}
  Device& device() { return device_; }

  Tensor put(const Floats& values, int64_t rows, int64_t cols, DType dtype) {
    const Tensor tensor = device_.tensor(rows, cols, dtype, "test");
    device_.load(tensor, 0,
                 HostMatrix{.data = values.data(), .rows = rows, .cols = cols, .row_stride = cols});
    device_.synchronize();
    return tensor;
  }
  Tensor put(const Floats& values, int64_t rows, int64_t cols) {
    return put(values, rows, cols, device_.dtype());
  }

  /// Rounded to e4m3, without scales.
  Tensor put_e4m3(const Floats& values, int64_t rows, int64_t cols) {
    std::vector<uint8_t> bytes;
    for (const float value : values) bytes.push_back(float_to_e4m3(value));
    const Tensor tensor = device_.tensor(rows, cols, DType::e4m3, "test");
    device_.copy_to_device(tensor.data, bytes.data(), bytes.size());
    return tensor;
  }

  /// A buffer full of NaN: what an operation does not write shows.
  Tensor poisoned(int64_t rows, int64_t cols, DType dtype) {
    return put(Floats(static_cast<size_t>(rows * cols), std::nanf("")), rows, cols, dtype);
  }
  Tensor poisoned(int64_t rows, int64_t cols) { return poisoned(rows, cols, device_.dtype()); }

  Ints put_ints(const std::vector<int32_t>& values) {
    const Ints ints = device_.ints(static_cast<int64_t>(values.size()), "test");
    device_.copy_to_device(ints.data, values.data(), values.size() * 4);
    return ints;
  }
  std::vector<int32_t> get_ints(Ints ints) {
    std::vector<int32_t> values(static_cast<size_t>(ints.size));
    device_.copy_to_host(values.data(), ints.data, values.size() * 4);
    return values;
  }

  Matrix matrix(Matrix::Kind kind, int64_t count, int64_t out_features, int64_t in_features,
                const Floats& values) {
    const Matrix matrix = device_.matrix({kind, count, out_features, in_features, device_.dtype()}, "test");
    for (int64_t i = 0; i < count; ++i)
      device_.load(matrix, i, 0,
                   HostMatrix{.data = values.data() + i * out_features * in_features,
                              .rows = out_features,
                              .cols = in_features,
                              .row_stride = in_features});
    device_.synchronize();
    return matrix;
  }

  Floats get(Tensor tensor) {
    const auto count = static_cast<size_t>(tensor.rows * tensor.cols);
    Floats values(count);
    if (tensor.dtype == DType::float32) {
      device_.copy_to_host(values.data(), tensor.data, tensor.bytes());
      return values;
    }
    if (tensor.dtype == DType::e4m3) {
      std::vector<uint8_t> bytes(count);
      device_.copy_to_host(bytes.data(), tensor.data, bytes.size());
      for (size_t i = 0; i < count; ++i) values[i] = e4m3_to_float(bytes[i]);
      return values;
    }
    std::vector<uint16_t> raw(count);
    device_.copy_to_host(raw.data(), tensor.data, tensor.bytes());
    for (size_t i = 0; i < count; ++i) values[i] = widen(tensor.dtype, raw[i]);
    return values;
  }

 private:
  Device& device_;
};

}  // namespace moerun::test
