#pragma once
#include <cuda_runtime_api.h>

#include <cstdint>

#include "moerun/dtype.h"
#include "moerun/router_rule.h"

namespace moerun {

/// Routes tokens to experts: logits = x·gateᵀ in float32, then scores, choice and weights by RouterRule, ties
/// to the lower index. A token's bits depend on its row alone: the sum over hidden has one order, for a gate
/// of x's dtype (eight parts) and for one in float32 (128 interleaved columns, a butterfly over lanes).
struct MoeRouterArgs {
  DType dtype = DType::bfloat16;  ///< of x
  bool float32_gate = false;      ///< the gate is float32, else of x's dtype
  const void* x = nullptr;        ///< [num_tokens, hidden]
  const void* gate = nullptr;     ///< [num_experts, hidden]
  const float* bias = nullptr;    ///< [num_experts], where experts are chosen; null: none
  int32_t num_tokens = 0;
  int32_t hidden = 0;             ///< a multiple of 8
  int32_t num_experts = 0;        ///< at most 512
  int32_t k = 0;                  ///< at most 32
  RouterRule rule;                ///< at most 32 groups of equal size
  int32_t* topk_ids = nullptr;    ///< [num_tokens, k] out, best first
  float* topk_weights = nullptr;  ///< [num_tokens, k] out
};

/// Throws Error for what the kernels do not take.
void check_router(const MoeRouterArgs& args);

/// For a gate in float32; launch_moe_router comes here by itself.
void launch_moe_router_float32(const MoeRouterArgs& args, cudaStream_t stream);

void launch_moe_router(const MoeRouterArgs& args, cudaStream_t stream);

}  // namespace moerun
