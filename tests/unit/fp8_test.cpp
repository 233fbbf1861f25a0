#include "moerun/fp8.h"

#include <algorithm>
#include <cmath>
#include <random>

#include "device/cpu_device.h"
#include "kernels/cpu/gemm_fp8.h"
#include "moerun/error.h"
#include "moerun/half.h"
#include "tests/catch.h"

using namespace moerun;

namespace {

using Floats = std::vector<float>;

/// A matrix in e4m3 with the scales of its blocks, as a checkpoint has them.
struct Stored {
  int64_t rows, cols, block_rows, block_cols;
  std::vector<uint8_t> values;
  Floats scales;

  Stored(int64_t r, int64_t c, int64_t br, int64_t bc, uint32_t seed)
      : rows(r), cols(c), block_rows(br), block_cols(bc) {
    std::mt19937 random(seed);
    for (int64_t i = 0; i < rows * cols; ++i) {
      auto bits = static_cast<uint8_t>(random());
      if (is_nan_e4m3(bits)) bits ^= 1u;
      values.push_back(bits);
    }
    for (int64_t i = 0; i < (rows + br - 1) / br * stride(); ++i)
      scales.push_back(1e-4F * static_cast<float>(1 + random() % 1000));
  }
  int64_t stride() const { return (cols + block_cols - 1) / block_cols; }
  float value(int64_t row, int64_t col) const {
    return e4m3_to_float(values[static_cast<size_t>(row * cols + col)]);
  }
  float scale(int64_t row, int64_t col) const {
    return scales[static_cast<size_t>(row / block_rows * stride() + col / block_cols)];
  }
  /// Rows [row0, row1) and columns from col0 on.
  HostMatrix part(int64_t row0, int64_t row1, int64_t col0 = 0) const {
    return {.data = values.data() + row0 * cols + col0,
            .dtype = DType::e4m3,
            .rows = row1 - row0,
            .cols = cols - col0,
            .row_stride = cols,
            .scales = {.data = scales.data(),
                       .block_rows = block_rows,
                       .block_cols = block_cols,
                       .stride = stride(),
                       .row0 = row0,
                       .col0 = col0}};
  }
};

Floats random_rows(int64_t count, uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  Floats out(static_cast<size_t>(count));
  for (float& x : out) x = normal(random);
  return out;
}

/// What moerun/fp8.h says, element by element.
float product(const float* x, const Stored& w, int64_t row, int64_t begin, int64_t end) {
  float acc = 0;
  for (int64_t g = begin; g < end; g += kScaleGroup) {
    const int64_t last = std::min(g + kScaleGroup, end);
    float amax = 0, sum = 0;
    for (int64_t k = g; k < last; ++k) amax = std::max(amax, std::fabs(x[k]));
    const float scale = activation_scale(amax);
    for (int64_t k = g; k < last; ++k)
      sum = std::fma(e4m3_to_float(float_to_e4m3(x[k] / scale)), w.value(row, k), sum);
    acc = std::fma(sum, w.scale(row, g) * scale, acc);
  }
  return acc;
}

Tensor upload(Device& device, const Floats& values, int64_t rows) {
  const auto cols = static_cast<int64_t>(values.size()) / rows;
  const Tensor out = device.tensor(rows, cols, DType::float32, "test");
  device.copy_to_device(out.data, values.data(), out.bytes());
  return out;
}

}  // namespace

// kernels/cuda/fp8.cuh divides so. Powers of two change neither quotient, so mantissas and the distance of
// exponents are all that there is.
TEST_CASE("a quotient near the right one becomes the same e4m3") {
  const int bits = GENERATE(8, 11);  // of bfloat16 and of float16
  const int first = 1 << (bits - 1), end = 1 << bits;
  int64_t tried = 0, different = 0;
  for (int largest = first; largest < end; ++largest) {
    const float scale = activation_scale(static_cast<float>(largest)), reciprocal = 1 / scale;
    for (int mantissa = first; mantissa < end; ++mantissa) {
      for (int down = mantissa > largest ? 1 : 0; down < 20; ++down, ++tried) {
        const float x = std::ldexp(static_cast<float>(mantissa), -down), quotient = x * reciprocal;
        const float near = std::fma(std::fma(-scale, quotient, x), reciprocal, quotient);
        different += float_to_e4m3(near) != float_to_e4m3(x / scale);
      }
    }
  }
  CHECK(different == 0);
  CHECK(tried > int64_t{19} * (end - first) * (end - first));
}

TEST_CASE("e4m3 goes to float32 and back, rounds to the nearest and saturates", "[fp8]") {
  for (uint32_t bits = 0; bits < 256; ++bits) {
    const float value = e4m3_to_float(static_cast<uint8_t>(bits));
    if (std::isnan(value))
      CHECK((bits & 0x7fu) == 0x7fu);
    else
      CHECK(float_to_e4m3(value) == bits);
  }
  CHECK(e4m3_to_float(0x7e) == 448.0F);
  CHECK(e4m3_to_float(0x08) == 0x1p-6F);
  CHECK(e4m3_to_float(0x01) == 0x1p-9F);
  CHECK(e4m3_to_float(0xb8) == -1.0F);
  for (const float large : {449.0F, 464.0F, 1e30F, INFINITY}) {
    CHECK(float_to_e4m3(large) == 0x7e);
    CHECK(float_to_e4m3(-large) == 0xfe);
  }
  CHECK(is_nan_e4m3(float_to_e4m3(NAN)));

  std::mt19937 random(3);
  for (int i = 0; i < 100000; ++i) {
    const float value =
        std::ldexp(static_cast<float>(random()) / 4294967296.0F + 0.5F, static_cast<int>(random() % 22) - 13);
    const uint8_t got = float_to_e4m3(value);
    for (const int step : {-1, 1}) {
      if (value > 448 || (got == 0 && step < 0) || (got == 0x7e && step > 0)) continue;
      const double error = std::fabs(double{e4m3_to_float(got)} - double{value});
      const double other = std::fabs(double{e4m3_to_float(static_cast<uint8_t>(got + step))} - double{value});
      CHECK((error < other || (error == other && got % 2 == 0)));
    }
  }
  CHECK(float_to_e4m3(0x1.1p-6F) == 0x08);  // halfway between 1 and 1.125 · 2^-6
  CHECK(float_to_e4m3(0x1.3p-6F) == 0x0a);
}

TEST_CASE("a group of zeros keeps scale 1, others divide by amax / 448", "[fp8]") {
  CHECK(activation_scale(0) == 1);
  CHECK(activation_scale(1e-35F) == 1);
  CHECK(activation_scale(448) == 1);
  CHECK(activation_scale(1) == 1.0F / 448);
}

TEST_CASE("activations are divided by their scale, where a product with its inverse rounds otherwise",
          "[fp8]") {
  std::mt19937 random(5);
  std::uniform_real_distribution<float> amaxes(0.1F, 100.0F);
  int otherwise = 0;
  for (int round = 0; round < 300; ++round) {
    // The largest, and what stands between two numbers of e4m3 once it is divided.
    Floats x{amaxes(random)};
    const float scale = activation_scale(x[0]), inverse = 1 / scale;
    for (uint8_t bits = 0x20; bits < 0x70; ++bits)
      x.push_back(scale * ((e4m3_to_float(bits) + e4m3_to_float(bits + 1)) / 2));
    cpu::QuantisedRows out;
    cpu::quantise_rows(x.data(), 1, static_cast<int64_t>(x.size()), out);
    for (size_t i = 0; i < x.size(); ++i) {
      const float value = e4m3_to_float(float_to_e4m3(x[i] / scale));
      if (out.values[i] != value) FAIL(x[i] << " of a group up to " << x[0] << ": " << out.values[i]);
      otherwise += value != e4m3_to_float(float_to_e4m3(x[i] * inverse));
    }
  }
  CHECK(otherwise > 100);
}

TEST_CASE("products of FP8 weights are what fp8.h says, bit by bit, whatever the parts", "[fp8]") {
  const auto device = make_cpu_device();
  struct Case {
    int64_t rows, cols, block_rows, block_cols;
  };
  for (const auto& [rows, cols, block_rows, block_cols] :
       {Case{300, 384, 128, 128}, Case{65, 200, 128, 128}, Case{33, 130, 1, 256}, Case{128, 72, 128, 128}}) {
    const Stored w(rows, cols, block_rows, block_cols, 5);
    const Matrix matrix = device->matrix({Matrix::Kind::plain, 1, rows, cols, DType::e4m3}, "test");
    const int64_t cut = rows / 3;  // inside a block
    device->load(matrix, 0, 0, w.part(0, cut));
    device->load(matrix, 0, cut, w.part(cut, rows));
    const int64_t m = 70;
    Floats x = random_rows(m * cols, 6);
    std::fill_n(x.begin(), std::min<int64_t>(cols, kScaleGroup), 0.0F);
    const Floats bias = random_rows(rows, 7);
    const Tensor out = device->tensor(m, rows, DType::float32, "test"), b = upload(*device, bias, 1);
    device->linear(upload(*device, x, m), matrix, &b, out);
    const Tensor alone = device->tensor(1, rows, DType::float32, "test");
    device->linear(upload(*device, {x.end() - cols, x.end()}, 1), matrix, &b, alone);
    int64_t wrong = 0;
    for (int64_t i = 0; i < m; ++i)
      for (int64_t n = 0; n < rows; ++n) {
        const float right = product(x.data() + i * cols, w, n, 0, cols) + bias[static_cast<size_t>(n)];
        wrong += static_cast<const float*>(out.data)[i * rows + n] != right;
        if (i == m - 1) wrong += static_cast<const float*>(alone.data)[n] != right;
      }
    CHECK(wrong == 0);
  }
}

TEST_CASE("a tree over chunks of FP8 columns has the bits of shards of columns", "[fp8]") {
  const auto device = make_cpu_device();
  const Stored w(40, 512, 128, 128, 8);
  const Floats x = random_rows(3 * 512, 9);
  const auto tree = [&](int64_t col0, int64_t cols, int32_t chunks) {
    const Matrix matrix = device->matrix({Matrix::Kind::plain, 1, 40, cols, DType::e4m3}, "test");
    HostMatrix part = w.part(0, 40, col0);
    part.cols = cols;
    device->load(matrix, 0, 0, part);
    Floats rows;
    for (int64_t i = 0; i < 3; ++i)
      rows.insert(rows.end(), x.begin() + i * 512 + col0, x.begin() + i * 512 + col0 + cols);
    const Tensor out = device->tensor(3, 40, DType::float32, "test");
    device->linear_tree(upload(*device, rows, 3), matrix, chunks, out);
    return Floats(static_cast<float*>(out.data), static_cast<float*>(out.data) + 120);
  };
  const Floats whole = tree(0, 512, 4), left = tree(0, 256, 2), right = tree(256, 256, 2);
  for (size_t i = 0; i < whole.size(); ++i) CHECK(whole[i] == left[i] + right[i]);
  CHECK_THROWS_AS(tree(0, 512, 8), Error);  // a chunk of 64
}

TEST_CASE("dummy FP8 weights are those of 16 bits, rounded", "[fp8]") {
  const auto device = make_cpu_device();
  const HostMatrix part{.dtype = DType::e4m3,
                        .rows = 5,
                        .cols = 128,
                        .row_stride = 128,
                        .dummy = {.key = 77, .scale = kE4m3Max},
                        .scales = {.value = 0.25F}};
  const Matrix matrix = device->matrix({Matrix::Kind::plain, 1, 5, 128, DType::e4m3}, "test");
  device->load(matrix, 0, 0, part);
  Floats x(128);
  x[17] = 448;  // scale 1, so the product is the weight
  const Tensor out = device->tensor(1, 5, DType::float32, "test");
  device->linear(upload(*device, x, 1), matrix, nullptr, out);
  for (int64_t n = 0; n < 5; ++n) {
    const float weight = e4m3_to_float(float_to_e4m3(dummy_weight(part.dummy, n * 128 + 17)));
    CHECK(static_cast<const float*>(out.data)[n] == weight * 448 * 0.25F);
  }
  HostMatrix floats = part;
  floats.dtype = DType::float32;
  CHECK_THROWS_AS(device->load(matrix, 0, 0, floats), Error);
}
