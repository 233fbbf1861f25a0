#pragma once
#include <cuda_runtime_api.h>

#include <cstdint>

#include "moerun/dtype.h"

namespace moerun {

/// Sums the expert outputs of each token along the binary tree over expert ids (moerun/expert_tree.h), every
/// node rounded to dtype. topk_ids and local_slot are read early: they must have been complete when the
/// kernel that precedes this one in the stream was launched.
struct MoeCombineArgs {
  DType dtype = DType::bfloat16;
  const void* y = nullptr;            ///< [num_tokens · k, hidden] weight·y of each pair, rounded to dtype
  const int32_t* topk_ids = nullptr;  ///< [num_tokens, k] as in Routed, any order, no expert twice
  const int32_t* local_slot =
      nullptr;  ///< [num_experts]; pairs of negative ids and of experts with −1 are not in y
  /// Null: out is [num_tokens, hidden], the sum over all local experts of a token (zero where it has none).
  /// Else [num_tokens + 1]: token t's partial sums, one for each largest subtree whose experts are all local,
  /// in ascending order, are the rows from partial_offsets[t] of out [num_partials, hidden] (cut_into_spans
  /// gives the same cut on the host).
  const int32_t* partial_offsets = nullptr;
  void* out = nullptr;
  int32_t num_tokens = 0;
  int32_t k = 0;       ///< at most 16
  int32_t hidden = 0;  ///< a multiple of 8
};

void launch_moe_combine(const MoeCombineArgs& args, cudaStream_t stream);

constexpr int32_t kMaxCombineNormK = 8, kMaxCombineNormHidden = 8192;

/// Adds each token's sum to its residual (rounded to dtype) and normalises that: the bits of
/// launch_moe_combine and launch_rms_norm one after the other, without a sum in memory between them. residual
/// and weight are read as early as topk_ids.
struct MoeCombineNormArgs {
  MoeCombineArgs sums;           ///< of one sum a token; k and hidden at most the above; `out`: normed rows
  void* residual = nullptr;      ///< [num_tokens, hidden] in and out
  const void* weight = nullptr;  ///< [hidden]
  float eps = 0;
};

void launch_moe_combine_add_rms_norm(const MoeCombineNormArgs& args, cudaStream_t stream);

}  // namespace moerun
