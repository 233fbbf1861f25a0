#pragma once
#include <fmt/core.h>
#include <mpi.h>

#include <cstring>
#include <functional>
#include <string>
#include <vector>

#include "comm/mpi_env.h"
#include "moerun/device.h"
#include "moerun/error.h"
#include "moerun/half.h"

namespace moerun::mpi_test {

/// A number in (−1, 1) that every rank can derive.
inline float value_of(uint64_t seed, uint64_t i) {
  uint64_t z = (seed * 0x9e3779b97f4a7c15u) ^ (i + 0x632be59bd9b4e019u);
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return static_cast<float>(static_cast<int64_t>((z ^ (z >> 31)) >> 40) - (1 << 23)) / (1 << 23);
}

/// Memory for the exchanges and nothing else of a device. `in_place` false plays a device whose memory the
/// host cannot address.
class MemoryDevice : public Device {
 public:
  MemoryDevice(DType dtype, bool in_place) : dtype_(dtype), in_place_(in_place) {}

  std::string name() const override { return "memory"; }
  DType dtype() const override { return dtype_; }
  bool host_memory() const override { return in_place_; }
  void* allocate(size_t bytes, const char*) override {
    blocks_.emplace_back(bytes, '\x7f');  // poison
    return blocks_.back().data();
  }
  void copy_to_device(void* device, const void* host, size_t bytes) override {
    std::memcpy(device, host, bytes);
  }
  void copy_to_host(void* host, const void* device, size_t bytes) override {
    std::memcpy(host, device, bytes);
  }
  void synchronize() override {}
  std::vector<MemoryUse> memory_table() const override { return {}; }
  size_t free_bytes() const override { return 0; }
  void tree_sum(Tensor shards, int32_t num_shards, Tensor out) override {
    for (int64_t i = 0; i < out.rows * out.cols; ++i) {
      store_float(out.data, dtype_, i, sum(shards, 0, num_shards, out.rows * out.cols, i));
    }
  }

  Matrix matrix(const MatrixShape&, const char*) override { unused(); }
  void load(const Matrix&, int64_t, int64_t, const HostMatrix&) override { unused(); }
  void load(const Tensor&, int64_t, const HostMatrix&) override { unused(); }
  void swap_blocks(std::span<const KvLayer>, std::span<const int32_t>, Swap) override { unused(); }
  void copy_rows(std::span<const KvLayer>, std::span<const int32_t>) override { unused(); }
  void begin_copy_to_host(const HostCopy&) override { unused(); }
  DevicePlan upload(const StepPlan&) override { unused(); }
  void embed(const Tensor&, Ints, Tensor) override { unused(); }
  void rms_norm(Tensor, const Tensor&, float, Tensor) override { unused(); }
  void add_rms_norm(const AddRmsNormArgs&) override { unused(); }
  void add_bias(Tensor, const Tensor&) override { unused(); }
  void linear(Tensor, const Matrix&, const Tensor*, Tensor) override { unused(); }
  void linear_tree(Tensor, const Matrix&, int32_t, Tensor) override { unused(); }
  void rope_and_cache(const DevicePlan&, const RopeArgs&) override { unused(); }
  void head_squares(Tensor, int32_t, Tensor) override { unused(); }
  void qk_scales(const QkScalesArgs&) override { unused(); }
  void add_shared(const AddSharedArgs&) override { unused(); }
  void attention(const DevicePlan&, const AttentionArgs&) override { unused(); }
  void silu_mul(Tensor, Tensor) override { unused(); }
  void router(const RouterArgs&) override { unused(); }
  void expert_ffn(const ExpertFfnArgs&) override { unused(); }
  void gather_rows(Tensor, std::span<const int32_t>, Tensor) override { unused(); }
  std::vector<TokenResult> sample(Tensor, std::span<const LogitRow>, const StepPlan&) override { unused(); }

 private:
  [[noreturn]] static void unused() { throw Error("the exchanges call an operation of the model"); }
  float sum(const Tensor& shards, int32_t begin, int32_t end, int64_t stride, int64_t i) const {
    if (end - begin == 1) return load_float(shards.data, dtype_, begin * stride + i);
    const int32_t middle = begin + (end - begin) / 2;
    float node = sum(shards, begin, middle, stride, i) + sum(shards, middle, end, stride, i);
    store_float(&node, dtype_, 0, node);
    return load_float(&node, dtype_, 0);
  }

  DType dtype_;
  bool in_place_;
  std::vector<std::vector<char>> blocks_;
};

/// Runs cases on every rank; a case fails when any rank's fails.
class Suite {
 public:
  explicit Suite(const MpiEnv& env) : env_(env) {}

  /// `body` returns what went wrong here, or "".
  void run(const std::string& title, const std::function<std::string()>& body) {
    std::string fault;
    try {
      fault = body();
    } catch (const std::exception& error) {
      fault = error.what();
    }
    bool ok = true;
    const auto faults = env_.all_gather(fault);
    for (size_t r = 0; r < faults.size(); ++r) {
      if (faults[r].empty()) continue;
      ok = false;
      if (env_.rank() == 0) fmt::print("FAILED {}: rank {} of {}: {}\n", title, r, env_.size(), faults[r]);
    }
    ++(ok ? passed_ : failed_);
  }
  /// Prints the totals at rank 0; the program's exit code.
  int finish() const {
    if (env_.rank() == 0) fmt::print("{} passed, {} failed\n", passed_, failed_);
    std::fflush(stdout);
    return failed_ > 0 ? 1 : 0;
  }

 private:
  const MpiEnv& env_;
  int passed_ = 0, failed_ = 0;
};

void test_env(const MpiEnv& env, Suite& suite);
void test_collectives(const MpiEnv& env, Suite& suite);
void test_exchange(const MpiEnv& env, Suite& suite);

}  // namespace moerun::mpi_test
