#pragma once
#include "moerun/step_runner.h"
#include "moerun/wire.h"

namespace moerun {

inline std::string pack(const StepPlan& plan) {
  WireWriter out;
  StepPlan::each(plan, [&](const auto& value) { out.put(value); });
  return out.take();
}

inline StepPlan unpack_plan(const std::string& bytes) {
  WireReader in(bytes);
  StepPlan plan;
  StepPlan::each(plan, [&](auto& value) { in.get(value); });
  return plan;
}

inline std::string pack(const StepResult& result) {
  WireWriter out;
  out.put(result.rows);
  for (const TokenResult& token : result.results)
    TokenResult::each(token, [&](const auto& value) { out.put(value); });
  out.put(result.routed);
  return out.take();
}

/// Puts a rank's results where the plan's logit rows are, and behind those of the ranks before it the experts
/// of its tokens.
inline void add_result(WireReader& in, StepResult& all) {
  std::vector<TokenResult>& results = all.results;
  for (const int32_t row : in.get<std::vector<int32_t>>()) {
    if (row < 0 || static_cast<size_t>(row) >= results.size())
      throw Error("a message between ranks names a row of the step that it does not have");
    TokenResult::each(results[static_cast<size_t>(row)], [&](auto& value) { in.get(value); });
  }
  const auto routed = in.get<std::vector<uint8_t>>();
  all.routed.insert(all.routed.end(), routed.begin(), routed.end());
}

}  // namespace moerun
