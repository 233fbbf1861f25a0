#pragma once
#include <cuda_runtime_api.h>

#include <cstdint>

#include "kernels/cuda/moe_permute.h"
#include "kernels/cuda/packed_weight.h"
#include "moerun/dtype.h"

namespace moerun {

/// The tiling, and with it the kernel, that suits a step: by measured times at its mean rows an expert. The
/// choice moves time, not bits.
MoeTiling grouped_gemm_tiling(int64_t num_tokens, int32_t k, int32_t num_experts);

/// The experts' two matrix products of a step in one launch:
///   h[r] = silu(x[t]·Wgᵀ) · (x[t]·Wuᵀ)       for every sorted row r = (expert, token t)
///   y[pair] = weight · (h[r]·W2ᵀ)             rounded once, to dtype
/// Every element is summed by one float32 accumulator, ascending along K; h is rounded to dtype. hidden and
/// intermediate are multiples of 8.
struct GroupedGemmArgs {
  DType dtype = DType::bfloat16;  ///< of x, the weights, h and y
  const void* x = nullptr;        ///< [num_tokens, hidden]
  const void* gate_up =
      nullptr;  ///< [num_local_experts] PackedWeight{2·intermediate, hidden}, rows interleaved
  const void* down = nullptr;  ///< [num_local_experts] PackedWeight{hidden, intermediate}
  void* h = nullptr;           ///< [num_tokens · k, intermediate] workspace, in sorted order
  void* y = nullptr;  ///< [num_tokens · k, hidden] out, in the order of the pairs; rows of pairs that are not
                      ///< local stay
  MoePlan plan;      ///< of moe_permute with the same tiling; one launch a plan
  MoeTiling tiling;  ///< grouped_gemm_tiling(…)
  int32_t k = 0;
  int32_t hidden = 0;
  int32_t intermediate = 0;
  int32_t num_sms = 0;  ///< blocks to launch: the GPU's multiprocessors
};

void launch_grouped_gemm(const GroupedGemmArgs& args, cudaStream_t stream);

}  // namespace moerun
