#pragma once
#include <cstdint>
#include <span>
#include <string_view>

#include "moerun/record.h"
#include "text/thinking.h"
#include "text/tool_calls.h"

namespace moerun {

/// Whether a prompt ends within the reasoning that it has begun, as chat templates of models do that always
/// think: `<think>` is the last but for space.
bool opens_reasoning(std::string_view prompt_end);

/// Splits an answer's text at the markers, as vLLM's reasoning parsers do: reasoning lies before the first
/// `</think>` where the prompt has opened it or the answer begins with `<think>`; all of the text is
/// reasoning where the end never comes. What follows is content, but for calls of functions and space
/// around them: what is said between two is `said` of the second in `tool_calls`, in which `named` is true
/// where the request said which function is called. Sets all but `reasoning_tokens`. `reasons`: the tokenizer
/// has thinking_markers; `opened`: opens_reasoning.
ChatParts split_chat(std::string_view text, bool reasons, bool opened, const ToolFunctions& functions);

/// The same of a text that leaves the markers out, because they are special tokens: its first `thoughts`
/// bytes are reasoning.
ChatParts split_behind_thoughts(std::string_view text, size_t thoughts, const ToolFunctions& functions);

/// How many of an answer's tokens stand between the markers, by the markers' own tokens. `opened` as there.
int32_t count_reasoning_tokens(std::span<const int32_t> token_ids, bool opened,
                               const ThinkingMarkers& markers);

}  // namespace moerun
