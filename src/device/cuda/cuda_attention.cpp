#include "device/cuda/cuda_attention.h"

#include <algorithm>
#include <cmath>

#include "kernels/cuda/attention_prefill.h"

namespace moerun {

namespace {

// What one multiprocessor makes of each part. Prefill: a share of the whole GPU's 441 TFLOP/s
// (kernels/README.md), a little less. Decode: of its 2.9 TB/s, on the assumption that a bit more than half of
// the multiprocessors would take all of that.
constexpr double kPrefillFlopPerSm = 3.2e12, kDecodeBytesPerSm = 40e9;
// Seconds. Beside 150 us of decode, 14 us of prefill were over as soon one after the other.
constexpr double kShortest = 20e-6;

}  // namespace

int32_t StepAttention::prefill_sms(const DevicePlan& plan, const AttentionArgs& args) const {
  const double flop = 4.0 * args.num_heads * args.kv.head_dim * static_cast<double>(plan.prefill_pairs);
  const double bytes = 2.0 * args.kv.num_kv_heads * static_cast<double>(args.kv.k.row_bytes()) *
                       static_cast<double>(plan.decode_keys);
  const double prefill = flop / kPrefillFlopPerSm, decode = bytes / kDecodeBytesPerSm;  // seconds of one SM
  if (std::min(prefill, decode) < kShortest * num_sms_) return num_sms_;
  const double share = prefill / (prefill + decode);
  return std::clamp(static_cast<int32_t>(std::lround(share * num_sms_)), 1, num_sms_ - 1);
}

void StepAttention::run(DType dtype, const DevicePlan& plan, const AttentionArgs& args,
                        const DecodeWorkspace& workspace) {
  const int32_t sms = prefill_sms(plan, args);
  if (sms == num_sms_) {
    launch_attention_prefill(dtype, plan, args, num_sms_, stream_);
    launch_attention_decode(dtype, plan, args, workspace, true, stream_);
    return;
  }
  CUDA_CHECK(cudaEventRecord(begin_, stream_));
  CUDA_CHECK(cudaStreamWaitEvent(side_, begin_));
  launch_attention_prefill(dtype, plan, args, sms, stream_);
  launch_attention_decode(dtype, plan, args, workspace, false, side_);
  CUDA_CHECK(cudaEventRecord(end_, side_));
  CUDA_CHECK(cudaStreamWaitEvent(stream_, end_));
}

}  // namespace moerun
