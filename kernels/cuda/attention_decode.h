#pragma once
#include <cuda_runtime_api.h>

#include "moerun/device.h"

namespace moerun {

/// Room for the parts of contexts that several thread blocks share, for one launch after the other of one
/// stream.
struct DecodeWorkspace {
  float* partials = nullptr;    ///< [num_floats] sums, maxima and totals of parts
  int32_t* arrivals = nullptr;  ///< [num_arrivals] zeros before and after each launch
  int64_t num_floats = 0, num_arrivals = 0;
};

/// What `launch_attention_decode` needs for these limits: at most 128 MiB or one sequence's, whichever is
/// more (a step that needs more runs in several launches). Pointers are null.
DecodeWorkspace decode_workspace_for(const StepLimits& limits);

/// Attention of the sequences that decode (one query each) over paged keys and values. The context is cut
/// into spans of a fixed number of positions from 0 on; within a span four warps take slices of 16 keys in
/// turn; slices, warps and spans are each combined ascending. So a row's bits depend on its own context
/// alone. Head sizes 64, 128 and 256, up to 16 query heads a key head, blocks of a multiple of 32 tokens;
/// keys and values in `dtype` or e4m3. What the
/// grid is depends on plan.num_seqs, num_prefill_seqs and max_context_len alone. `after_kernel`: what the
/// stream holds before is a kernel, and nothing of another stream is waited for.
void launch_attention_decode(DType dtype, const DevicePlan& plan, const AttentionArgs& args,
                             const DecodeWorkspace& workspace, bool after_kernel, cudaStream_t stream);

}  // namespace moerun
