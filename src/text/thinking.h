#pragma once
#include <cstdint>
#include <optional>

#include "text/tokenizer.h"

namespace moerun {

/// A reasoning model's thoughts: between these tokens, before its answer.
struct ThinkingMarkers {
  int32_t begin = 0, end = 0;
};

/// "<think>" and "</think>" where the vocabulary has both as tokens, as Qwen's, GLM's and DeepSeek's models
/// do.
inline std::optional<ThinkingMarkers> thinking_markers(const Tokenizer& tokenizer) {
  const auto begin = tokenizer.token_id("<think>"), end = tokenizer.token_id("</think>");
  if (!begin || !end) return std::nullopt;
  return ThinkingMarkers{*begin, *end};
}

}  // namespace moerun
