#pragma once
#include <cuda_runtime_api.h>

#include <cstdint>

#include "kernels/cuda/fp8_quantise.h"
#include "kernels/cuda/moe_permute.h"
#include "moerun/dtype.h"

namespace moerun {

/// The tiling that suits a step, by its mean rows an expert. It moves time, not bits.
MoeTiling fp8_grouped_gemm_tiling(int64_t num_tokens, int32_t k, int32_t num_experts);

/// The experts' two matrix products of a step in one launch, as moerun/fp8.h says:
///   h[r] = silu(x[t]·Wgᵀ) · (x[t]·Wuᵀ)       for every sorted row r = (expert, token t), rounded to dtype
///   and
///                                            quantised
///   y[pair] = weight · (h[r]·W2ᵀ)             rounded once, to dtype
/// hidden and intermediate are multiples of 8.
struct Fp8GroupedGemmArgs {
  DType dtype = DType::bfloat16;  ///< of y, and what h is rounded to
  Fp8Rows x;                      ///< [num_tokens, hidden]
  const uint8_t* gate_up =
      nullptr;  ///< [num_local_experts] Fp8PackedWeight{2·intermediate, hidden}, interleaved
  const uint8_t* down = nullptr;  ///< [num_local_experts] Fp8PackedWeight{hidden, intermediate}
  Fp8Rows h;                      ///< [num_tokens · k, intermediate] workspace, in sorted order
  void* y = nullptr;  ///< [num_tokens · k, hidden] out, in the order of the pairs; rows of pairs that are not
                      ///< local stay
  MoePlan plan;          ///< of moe_permute with the same tiling; one launch a plan
  MoeTiling tiling;      ///< fp8_grouped_gemm_tiling(…)
  int64_t num_rows = 0;  ///< num_tokens · k
  int32_t k = 0;
  int32_t hidden = 0;
  int32_t intermediate = 0;
  int32_t num_sms = 0;  ///< blocks to launch: the GPU's multiprocessors
};

void launch_fp8_grouped_gemm(const Fp8GroupedGemmArgs& args, cudaStream_t stream);

}  // namespace moerun
