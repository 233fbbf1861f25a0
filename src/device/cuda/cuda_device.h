#pragma once
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "device/cuda/cuda_attention.h"
#include "device/cuda/cuda_graphs.h"
#include "device/cuda/cuda_memory.h"
#include "device/cuda/cuda_upload.h"
#include "device/cuda/cuda_wait.h"
#include "device/cuda/cuda_workspace.h"
#include "device/cuda_device.h"
#include "device/memory_uses.h"
#include "moerun/device.h"

namespace moerun {

struct MoeCombineArgs;

/// A Hopper GPU. Operations are launches of kernels/cuda on one stream; what they need beyond their arguments
/// is set aside by `reserve`.
class CudaDevice : public Device {
 public:
  explicit CudaDevice(const CudaOptions& options);
  ~CudaDevice() override;

  std::string name() const override { return name_; }
  std::string uuid() const override { return uuid_; }
  DType dtype() const override { return options_.dtype; }
  cudaStream_t stream() const { return stream_; }
  const Arena& arena() const { return *arena_; }

  void* allocate(size_t bytes, const char* what) override;
  Tensor host_tensor(int64_t rows, int64_t cols, DType dtype, const char* what) override;
  Matrix matrix(const MatrixShape& shape, const char* what) override;
  void load(const Matrix& matrix, int64_t index, int64_t row0, const HostMatrix& part) override;
  void load(const Tensor& tensor, int64_t row0, const HostMatrix& part) override;
  size_t free_bytes() const override { return arena_->free_bytes(); }
  std::vector<MemoryUse> memory_table() const override;
  std::vector<DeviceProcess> processes() const override;
  void reserve(const StepLimits& limits) override;
  void copy_to_device(void* device, const void* host, size_t bytes) override;
  void copy_to_host(void* host, const void* device, size_t bytes) override;
  void begin_copy_to_host(const HostCopy& copy) override;
  void synchronize() override;
  void set_wait_check(const std::function<void()>& check) override { wait_.set_check(check); }

  void swap_blocks(std::span<const KvLayer> cache, std::span<const int32_t> pairs, Swap way) override;
  void copy_rows(std::span<const KvLayer> cache, std::span<const int32_t> copies) override;
  void run(const StepShape& shape, const std::function<void()>& body) override;
  void forget_recorded() override;
  DevicePlan upload(const StepPlan& plan) override;
  void embed(const Tensor& table, Ints tokens, Tensor out) override;
  void rms_norm(Tensor x, const Tensor& weight, float eps, Tensor out) override;
  void add_rms_norm(const AddRmsNormArgs& args) override;
  void linear(Tensor x, const Matrix& w, const Tensor* bias, Tensor out) override;
  void linear_tree(Tensor x, const Matrix& w, int32_t chunks, Tensor out) override;
  void linear_tree_add_rms_norm(Tensor x, const Matrix& w, int32_t chunks,
                                const AddRmsNormArgs& then) override;
  void add_bias(Tensor x, const Tensor& bias) override;
  void rope_and_cache(const DevicePlan& plan, const RopeArgs& args) override;
  void head_squares(Tensor qkv, int32_t head_dim, Tensor out) override;
  void qk_scales(const QkScalesArgs& args) override;
  void attention(const DevicePlan& plan, const AttentionArgs& args) override;
  void gate_heads(const GateHeadsArgs& args) override;
  void swap_states(std::span<const DeltaState> states, std::span<const int32_t> pairs, Swap way) override;
  void copy_states(std::span<const DeltaState> states, std::span<const int32_t> pairs) override;
  void delta_conv(const DevicePlan& plan, const DeltaConvArgs& args) override;
  void delta_rule(const DevicePlan& plan, const DeltaRuleArgs& args) override;
  void delta_norm(const DeltaNormArgs& args) override;
  void silu_mul(Tensor gate_up, Tensor out) override;
  void router(const RouterArgs& args) override;
  void expert_ffn(const ExpertFfnArgs& args) override;
  void expert_ffn_add_rms_norm(const ExpertFfnArgs& args, const AddRmsNormArgs& then) override;
  void add_shared(const AddSharedArgs& args) override;
  void gather_rows(Tensor x, std::span<const int32_t> rows, Tensor out) override;
  void tree_sum(Tensor shards, int32_t num_shards, Tensor out) override;
  std::vector<TokenResult> sample(Tensor logits, std::span<const LogitRow> rows,
                                  const StepPlan& plan) override;

 private:
  /// What `reserve` sets aside. Throws Error when it was not called.
  CudaWorkspace& workspace();
  /// x·Wᵀ in `chunks` parts of K, as many rows at a time as their workspace holds; `sum(begin, end)` follows
  /// each time, with [chunks, end − begin, out_features] there.
  void linear_in_parts(Tensor x, const Matrix& w, int32_t chunks,
                       const std::function<void(int64_t, int64_t)>& sum);
  /// weight·y of each pair, as many tokens at a time as the workspace holds; `sum(begin, rows)` follows each
  /// time: the rows of the tokens from `begin` on, and not yet where their sums go.
  void experts_in_parts(const ExpertFfnArgs& args, const std::function<void(int64_t, MoeCombineArgs)>& sum);

  /// Of one of its maps, packed.
  size_t matrix_bytes(const Matrix& matrix) const;
  /// Sets aside what products with weights in e4m3 need, once they and the workspace are there.
  void reserve_fp8();

  // In this order: the GPU is chosen before anything else touches CUDA, the stream outlives what is enqueued
  // on it, the arena what points into it.
  CudaOptions options_;
  cudaDeviceProp properties_;
  std::string name_, uuid_;
  Stream stream_;
  StreamWait wait_;
  std::unique_ptr<Arena> arena_;
  std::deque<PinnedBuffer> host_tensors_;
  MemoryUses host_uses_;
  std::unique_ptr<WeightUpload> weights_;
  std::unique_ptr<CudaWorkspace> workspace_;
  bool fp8_weights_ = false;
  StepAttention attention_;
  GraphCache graphs_;
};

}  // namespace moerun
