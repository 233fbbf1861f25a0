#pragma once
#include <cuda_runtime_api.h>

#include "moerun/device.h"

namespace moerun {

/// Norm and rotation of queries and keys (Hugging Face `Qwen3MoeAttention`: RMSNorm of each head with its
/// rounding, then rotate_half in float32), queries to args.q, keys and values to the cache, in its
/// type: `dtype`, or e4m3 to nearest even, saturated at ±448, a row with a NaN all NaN. Head sizes 64, 128
/// and 256. All but qkv and scales is read early: it must have been complete when the kernel that precedes
/// this one in the stream was launched.
void launch_rope_cache(DType dtype, const DevicePlan& plan, const RopeArgs& args, cudaStream_t stream);

/// The same for any rotated part of a head, pairs of neighbours, and a norm over all heads together;
/// launch_rope_cache comes here by itself.
void launch_rope_heads(DType dtype, const DevicePlan& plan, const RopeArgs& args, cudaStream_t stream);

}  // namespace moerun
