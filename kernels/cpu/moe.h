#pragma once
#include <cstdint>
#include <vector>

#include "kernels/cpu/gemm_fp8.h"

namespace moerun::cpu {

/// A matrix of each local expert, one after the other: packed floats, or e4m3 where `floats` is null.
struct ExpertWeights {
  const float* floats = nullptr;
  Fp8Weight fp8;
};

struct ExpertFfnArgs {
  const float* x = nullptr;             ///< [n, hidden]
  const int32_t* ids = nullptr;         ///< [n, k] as in Routed
  const float* weights = nullptr;       ///< [n, k]
  ExpertWeights gate_up;                ///< [local] W [2·width, hidden]
  ExpertWeights down;                   ///< [local] W [hidden, width]
  const int32_t* local_slot = nullptr;  ///< [experts] −1: elsewhere
  int64_t n = 0, k = 0, hidden = 0, width = 0, num_local = 0;
  float* out = nullptr;                      ///< [partials, hidden]
  const int32_t* partial_offsets = nullptr;  ///< [n + 1]; null: one partial a token
  bool pairs = false;                        ///< no sums: each local pair's row of out [n·k, hidden]
  uint64_t* expert_tokens = nullptr;         ///< optional, [experts]: += tokens of local experts
};

/// Reused between calls, so that a step allocates nothing once it has run at full size.
struct ExpertFfnScratch {
  std::vector<int32_t> expert_begin, pairs, order;
  std::vector<float> x, gate_up, h, y;
  QuantisedRows quantised;  ///< of the product at hand
};

/// weight·down(silu(gate x)·up x) of the local experts, summed along the tree over expert ids as far as it is
/// local (moerun/expert_tree.h).
void expert_ffn(const ExpertFfnArgs& args, ExpertFfnScratch& scratch);

}  // namespace moerun::cpu
