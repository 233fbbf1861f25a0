#pragma once
#include <cuda_runtime_api.h>

#include "moerun/device.h"

namespace moerun {

/// Causal attention of the sequences that prefill, over paged keys and values; a chunk's queries are the last
/// ones of its context. Key tiles lie at multiples of the tile size from position 0 and are taken ascending;
/// a key past a query's own position adds exactly nothing. So a row's bits do not depend on how its prompt is
/// cut into chunks, nor on the other rows. Head sizes 64, 128 and 256, up to 128 query heads a key head,
/// blocks of a multiple of 32 tokens; throws Error otherwise. Keys and values in `dtype`, or in e4m3: then
/// the bits are those of the same numbers in `dtype`. `num_sms`: multiprocessors of the GPU.
void launch_attention_prefill(DType dtype, const DevicePlan& plan, const AttentionArgs& args, int32_t num_sms,
                              cudaStream_t stream);

}  // namespace moerun
