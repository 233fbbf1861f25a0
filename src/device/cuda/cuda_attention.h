#pragma once
#include "device/cuda/cuda_memory.h"
#include "kernels/cuda/attention_decode.h"
#include "moerun/device.h"

namespace moerun {

/// Attention of a step: the sequences that prefill and those that decode. Prefill computes and decode reads,
/// so where a step has both they run side by side, prefill on a share of the multiprocessors that lets both
/// end together; one after the other, each leaves idle what the other needs. Where each row is computed moves
/// no bits. Thread contract: the engine thread.
class StepAttention {
 public:
  StepAttention(cudaStream_t stream, int32_t num_sms) : stream_(stream), num_sms_(num_sms) {}

  void run(DType dtype, const DevicePlan& plan, const AttentionArgs& args, const DecodeWorkspace& workspace);

 private:
  /// Multiprocessors for prefill; all of them where the two parts run one after the other.
  int32_t prefill_sms(const DevicePlan& plan, const AttentionArgs& args) const;

  cudaStream_t stream_;
  int32_t num_sms_;
  Stream side_;  // of decode, where it runs beside prefill
  Event begin_, end_;
};

}  // namespace moerun
