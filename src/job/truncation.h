#pragma once
#include <cstdint>
#include <string>

#include "moerun/record.h"

namespace moerun {

// `input.truncate_prompt: left`, as lm-evaluation-harness cuts contexts and vLLM prompts
// (`truncate_prompt_tokens`): the end of a prompt is kept, and special tokens at its beginning go with it.

/// The tokens of a prompt that leave room for a whole answer: model.max_model_len − max_tokens.
inline int64_t most_prompt_tokens(const SamplingParams& sampling, int64_t max_model_len) {
  return max_model_len - sampling.max_tokens;
}

/// A sentence about max_tokens that leave no room for any prompt, or an empty string.
std::string no_room_for_prompt(const SamplingParams& sampling, int64_t max_model_len);

/// Keeps the last tokens of a record's ids, as many as there is room for, and notes how many went. Scores
/// begin at the same token as before, or at the first that is left. What is cut already stays as it is.
void truncate_left(PromptRecord& record, int64_t max_model_len);

}  // namespace moerun
