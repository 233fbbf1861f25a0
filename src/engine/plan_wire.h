#pragma once
#include "moerun/step_runner.h"
#include "moerun/wire.h"

namespace moerun {

inline std::string pack(const StepPlan& plan) {
  WireWriter out;
  for (const auto* ints : {&plan.tokens, &plan.positions, &plan.slot_mapping, &plan.cu_seqlens_q,
                           &plan.context_lens, &plan.block_table, &plan.swap_out, &plan.swap_in,
                           &plan.history_tokens, &plan.history_counts, &plan.banned_tokens})
    out.put(*ints);
  out.put(plan.max_blocks);
  out.put(plan.num_prefill_seqs);
  out.put(plan.logit_rows);
  return out.take();
}

inline StepPlan unpack_plan(const std::string& bytes) {
  WireReader in(bytes);
  StepPlan plan;
  for (auto* ints : {&plan.tokens, &plan.positions, &plan.slot_mapping, &plan.cu_seqlens_q,
                     &plan.context_lens, &plan.block_table, &plan.swap_out, &plan.swap_in,
                     &plan.history_tokens, &plan.history_counts, &plan.banned_tokens})
    in.get(*ints);
  in.get(plan.max_blocks);
  in.get(plan.num_prefill_seqs);
  in.get(plan.logit_rows);
  return plan;
}

inline std::string pack(const StepResult& result) {
  WireWriter out;
  out.put(result.rows);
  for (const TokenResult& token : result.results) {
    out.put(token.token);
    out.put(token.fault);
    out.put(token.logprob);
    out.put(token.top_tokens);
    out.put(token.top_logprobs);
  }
  return out.take();
}

/// Puts a rank's results where the plan's logit rows are.
inline void unpack_results(WireReader& in, std::vector<TokenResult>& results) {
  for (const int32_t row : in.get<std::vector<int32_t>>()) {
    if (row < 0 || static_cast<size_t>(row) >= results.size())
      throw Error("a message between ranks names a row of the step that it does not have");
    TokenResult& token = results[static_cast<size_t>(row)];
    in.get(token.token);
    in.get(token.fault);
    in.get(token.logprob);
    in.get(token.top_tokens);
    in.get(token.top_logprobs);
  }
}

}  // namespace moerun
