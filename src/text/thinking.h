#pragma once
#include <cstdint>
#include <optional>
#include <string_view>

#include "text/tokenizer.h"

namespace moerun {

inline constexpr std::string_view kThink = "<think>", kThinkEnd = "</think>";
inline constexpr std::string_view kNoThinkingMarkers = "the tokenizer has no tokens <think> and </think>";

/// A reasoning model's thoughts: between these tokens, before its answer.
struct ThinkingMarkers {
  int32_t begin = 0, end = 0;
};

/// "<think>" and "</think>" where the vocabulary has both as tokens, as Qwen's, GLM's and DeepSeek's models
/// do.
inline std::optional<ThinkingMarkers> thinking_markers(const Tokenizer& tokenizer) {
  const auto begin = tokenizer.token_id(kThink), end = tokenizer.token_id(kThinkEnd);
  if (!begin || !end) return std::nullopt;
  return ThinkingMarkers{*begin, *end};
}

}  // namespace moerun
