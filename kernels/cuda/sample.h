#pragma once
#include <cuda_runtime_api.h>

#include <cstdint>

#include "moerun/plan.h"
#include "moerun/sampling.h"

namespace moerun {

/// What became of one row of logits.
struct SampledRow {
  int32_t token;
  TokenFault fault;                  ///< else nothing else here means anything
  float logprob;                     ///< when row.draw.logprobs ≥ 0
  int32_t top_tokens[kMaxLogprobs];  ///< row.draw.logprobs of them
  float top_logprobs[kMaxLogprobs];
};

/// Draws or scores rows of logits, each by one block and in one order whatever its neighbours. The meaning of
/// every option is that of kernels/cpu/sample.cpp, ties to the lower id throughout: biases and penalties of
/// what bans and the mask leave, then the greedy choice, or temperature, top_k, top_p, min_p and a draw by
/// Gumbel noise of (seed, stream, position). Log-probabilities are of the model's own logits. top_p sums
/// probabilities in 40-bit fixed point, whose sums have no order.
struct SampleArgs {
  float* logits = nullptr;          ///< [num_rows, vocab]; penalised rows change and are put back
  const LogitRow* rows = nullptr;   ///< [num_rows] their ranges and masks count in the arrays below
  const int32_t* tokens = nullptr;  ///< seen, banned and biased ids
  const int32_t* counts = nullptr;  ///< of the seen ids, in the answer; of the biased ones the bias's bits
  const uint32_t* masks = nullptr;  ///< [.., ⌈vocab / 32⌉]
  float* saved = nullptr;  ///< workspace beside `tokens`: the logits that biases, penalties and bans changed
  SampledRow* results = nullptr;  ///< [num_rows] out
  int32_t num_rows = 0;
  int32_t vocab = 0;  ///< at most 2^22
};

void launch_sample(const SampleArgs& args, cudaStream_t stream);

}  // namespace moerun
