#pragma once
#include <cuda_runtime_api.h>

#include "moerun/device.h"

namespace moerun {

/// Norm and rotation of queries and keys (Hugging Face `Qwen3MoeAttention`: RMSNorm of each head with its
/// rounding, then rotate_half in float32), queries to args.q, keys and values to the cache. Head sizes 64 and
/// 128.
void launch_rope_cache_plain(DType dtype, const DevicePlan& plan, const RopeArgs& args, cudaStream_t stream);

/// Causal attention over paged keys and values, a warp a query and head, keys ascending in steps of 32 from
/// position 0: prefill and decode alike. Written to be read. Head sizes 64 and 128; blocks of a multiple of
/// 32 tokens.
void launch_attention_plain(DType dtype, const DevicePlan& plan, const AttentionArgs& args,
                            cudaStream_t stream);

}  // namespace moerun
