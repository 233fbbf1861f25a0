#pragma once
#include <cuda_runtime_api.h>

#include "moerun/device.h"

namespace moerun {

/// Device::delta_conv: heads of whole vectors (limits::kVector), up to limits::kMaxConvWidth positions.
void launch_delta_conv(DType dtype, const DevicePlan& plan, const DeltaConvArgs& args, cudaStream_t stream);

/// Device::delta_rule, of heads of up to limits::kMaxDeltaDim elements, whole vectors: the sequences that
/// prefill by chunks (delta_rule.cu), those that decode by a step (delta_step.cu). The states are float32 in
/// both; operands of the chunks' products are rounded to tf32, sums are float32.
void launch_delta_rule(DType dtype, const DevicePlan& plan, const DeltaRuleArgs& args, cudaStream_t stream);
void launch_delta_chunks(DType dtype, const DevicePlan& plan, const DeltaRuleArgs& args, cudaStream_t stream);
void launch_delta_steps(DType dtype, const DevicePlan& plan, const DeltaRuleArgs& args, cudaStream_t stream);

/// Device::delta_norm and gate_heads: in float32, rounded once.
void launch_delta_norm(DType dtype, const DeltaNormArgs& args, cudaStream_t stream);
void launch_gate_heads(DType dtype, const GateHeadsArgs& args, cudaStream_t stream);

}  // namespace moerun
