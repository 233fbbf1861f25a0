#pragma once
#include <cuda_runtime_api.h>

#include <cstdint>

#include "moerun/dtype.h"

namespace moerun {

/// Adds the partial sums of this rank's own tokens, one from each rank that holds an expert of the token.
struct RankTreeSumArgs {
  const void* partials =
      nullptr;  ///< [ranks, step_tokens, hidden]; rows of ranks without an expert of the token are not read
  const int32_t* row_of =
      nullptr;  ///< optional [ranks, num_tokens]: else the row of `partials` where a rank's sum of a token is
  const int32_t* ids = nullptr;      ///< [num_tokens, k] global expert ids
  const int32_t* rank_of = nullptr;  ///< [num_experts]
  void* out = nullptr;               ///< [num_tokens, hidden]
  int32_t ranks = 1;                 ///< a power of two, at most 64
  int32_t k = 0, hidden = 0, num_tokens = 0, step_tokens = 0;
  DType dtype = DType::bfloat16;
};

/// out = a binary tree over ranks, each node rounded to dtype, a rank without a partial sum left out: the
/// upper part of the tree over expert ids (moerun/expert_tree.h) when each rank holds one aligned subtree.
void launch_rank_tree_sum(const RankTreeSumArgs& args, cudaStream_t stream);

}  // namespace moerun
