#pragma once
#include <cstdint>

#include "moerun/router_rule.h"

namespace moerun::cpu {

struct RouterArgs {
  const float* x = nullptr;     ///< [n, hidden]
  const float* gate = nullptr;  ///< [experts, hidden]
  const float* bias = nullptr;  ///< [experts]; null: none
  int64_t n = 0, hidden = 0, experts = 0, k = 0;
  RouterRule rule;
  int32_t* ids = nullptr;    ///< [n, k] best first, ties to the lower id
  float* weights = nullptr;  ///< [n, k]
};

/// Logits, scores, choice and weights of each token as `rule` says.
void router(const RouterArgs& args);

}  // namespace moerun::cpu
