#pragma once
#include <cuda_runtime_api.h>

#include <cstdint>

#include "moerun/dtype.h"

namespace moerun {

/// Routes tokens to experts: logits = x·gateᵀ in float32, softmax over all experts in float32, the k largest
/// with ties to the lower index. A token's bits depend on its row alone: the sum over hidden is always cut
/// into the same eight parts.
struct MoeRouterArgs {
  DType dtype = DType::bfloat16;  ///< of x and gate
  const void* x = nullptr;        ///< [num_tokens, hidden]
  const void* gate = nullptr;     ///< [num_experts, hidden]
  int32_t num_tokens = 0;
  int32_t hidden = 0;             ///< a multiple of 8
  int32_t num_experts = 0;        ///< at most 512
  int32_t k = 0;                  ///< at most 32
  bool norm_topk_prob = false;    ///< divide the k weights by their sum
  int32_t* topk_ids = nullptr;    ///< [num_tokens, k] out, most probable first
  float* topk_weights = nullptr;  ///< [num_tokens, k] out
};

void launch_moe_router(const MoeRouterArgs& args, cudaStream_t stream);

}  // namespace moerun
