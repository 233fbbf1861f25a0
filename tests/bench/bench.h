#pragma once
// How ops_bench times an operation.
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <functional>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "moerun/device.h"

namespace moerun {

/// What percent of the bound refers to; the defaults are one H100's.
struct Ceilings {
  double bytes_a_second = 3.09e12, flop_a_second = 753e12;
};

/// The GPU's clock falls when its power has been at its limit for some milliseconds.
enum class Pace {
  usual,      ///< a few runs in turn
  sustained,  ///< after half a second of the same: what a long job gets
  rested,     ///< single runs after a tenth of a second of nothing: what a short measurement gets
};

/// Runs operations of one device and prints a line for each.
class Bench {
 public:
  static constexpr int64_t kCopies = 4;  ///< repetitions in one graph
  Bench(const Ceilings& ceilings, std::unique_ptr<Device> device)
      : ceilings_(ceilings), device_(std::move(device)) {}
  Device& device() { return *device_; }
  /// Of the matrices that random_matrix makes from now on: the device's dtype or e4m3. FP8 operations are
  /// twice as fast as those of 16 bits.
  void set_weights(DType dtype) { weights_ = dtype; }
  /// Bytes of so many weights, beside which those of scales are few.
  double weight_bytes(double weights) const { return weights * static_cast<double>(size_of(weights_)); }

  Tensor random(int64_t rows, int64_t cols, float scale, DType dtype = DType::bfloat16) {
    const Tensor tensor = device_->tensor(rows, cols, dtype, "bench");
    device_->load(tensor, 0, dummy(rows, cols, scale));
    return tensor;
  }
  /// Values of e4m3: normal and subnormal numbers, no NaN.
  Tensor random_e4m3(int64_t rows, int64_t cols) {
    const Tensor tensor = device_->tensor(rows, cols, DType::e4m3, "bench");
    std::mt19937_64 random(++key_);
    std::vector<uint8_t> part(std::min<size_t>(tensor.bytes(), size_t{1} << 24));
    for (uint8_t& byte : part) byte = float_to_e4m3(static_cast<float>(random() % 2001) / 500 - 2);
    for (size_t at = 0; at < tensor.bytes(); at += part.size())
      device_->copy_to_device(static_cast<char*>(tensor.data) + at, part.data(),
                              std::min(part.size(), tensor.bytes() - at));
    return tensor;
  }
  Matrix random_matrix(Matrix::Kind kind, int64_t count, int64_t out_features, int64_t in_features) {
    const Matrix matrix = device_->matrix({kind, count, out_features, in_features, weights_}, "bench");
    for (int64_t i = 0; i < count; ++i) {
      HostMatrix part = dummy(out_features, in_features, 0.05F);
      if (weights_ == DType::e4m3) {
        part.dtype = DType::e4m3;
        part.dummy.scale = kE4m3Max;
        part.scales.value = 0.05F / kE4m3Max;
      }
      device_->load(matrix, i, 0, part);
    }
    return matrix;
  }

  /// `op(i)` for i < kCopies as one graph.
  void time(const std::string& name, int64_t tokens, double bytes, double flop,
            const std::function<void(int64_t)>& op, Pace pace = Pace::usual) {
    ++shape_.num_tokens;  // a graph of its own
    const auto step = [&] {
      device_->run(shape_, [&] {
        for (int64_t i = 0; i < kCopies; ++i) op(i);
      });
    };
    report(name, tokens, bytes, flop, seconds(step, pace) / kCopies);
  }
  void time_host(const std::string& name, int64_t tokens, double bytes, const std::function<void()>& op) {
    report(name, tokens, bytes, 0, seconds(op, Pace::usual));
  }

 private:
  HostMatrix dummy(int64_t rows, int64_t cols, float scale) {
    return {.rows = rows,
            .cols = cols,
            .row_stride = cols,
            .dummy = {.key = ++key_ * 0x9E3779B97F4A7C15ull, .scale = scale}};
  }
  double seconds(const std::function<void()>& step, Pace pace) {
    using Clock = std::chrono::steady_clock;
    const auto since = [](Clock::time_point begin) {
      return std::chrono::duration<double>(Clock::now() - begin).count();
    };
    for (int i = 0; i < 3; ++i) step();
    device_->synchronize();
    for (const auto begin = Clock::now(); pace == Pace::sustained && since(begin) < 0.5;) {
      step();
      device_->synchronize();
    }
    std::vector<double> times;
    for (int round = 0; round < 5; ++round) {
      if (pace == Pace::rested) std::this_thread::sleep_for(std::chrono::milliseconds(100));
      const int repeats = pace == Pace::rested ? 1 : 5;
      const Clock::time_point begin = Clock::now();
      for (int i = 0; i < repeats; ++i) step();
      device_->synchronize();
      times.push_back(since(begin) / repeats);
    }
    std::sort(times.begin(), times.end());
    return times[times.size() / 2];
  }
  void report(const std::string& name, int64_t tokens, double bytes, double flop, double seconds) {
    const bool fp8 = weights_ == DType::e4m3;
    const double bound =
        std::max(bytes / ceilings_.bytes_a_second, flop / ((fp8 ? 2 : 1) * ceilings_.flop_a_second));
    fmt::print("{:<32} {:>6}  {:>9.1f} us  {:>5.1f}%  {:>7.0f} GB/s {:>6.0f} TFLOP/s\n",
               (fp8 ? "fp8 " : "") + name, tokens, seconds * 1e6, 100 * bound / seconds,
               bytes / seconds / 1e9, flop / seconds / 1e12);
    std::fflush(stdout);
  }

  Ceilings ceilings_;
  std::unique_ptr<Device> device_;
  StepShape shape_;
  uint64_t key_ = 0;
  DType weights_ = DType::bfloat16;
};

}  // namespace moerun
