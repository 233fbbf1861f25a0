#pragma once
#include <cstdint>
#include <string>

#include "moerun/job.h"
#include "moerun/record.h"

namespace moerun {

// `input.truncate_prompt: left`, as lm-evaluation-harness cuts contexts and vLLM prompts
// (`truncate_prompt_tokens`): the end of a prompt is kept, and special tokens at its beginning go with it.

/// What of long prompts is kept.
struct PromptRoom {
  int64_t max_model_len = 0;
  bool leaves_room = false;  ///< for whole answers: `input.truncate_prompt: left`

  bool cuts(const SamplingParams& sampling) const {
    return leaves_room || sampling.truncate_prompt_tokens != 0;
  }
  /// The tokens of a prompt that are kept: model.max_model_len − max_tokens of those that leave room, and as
  /// many as `sampling.truncate_prompt_tokens` says.
  int64_t most_prompt_tokens(const SamplingParams& sampling) const;
};

inline PromptRoom prompt_room_of(const Job& job) {
  return {.max_model_len = job.model.max_model_len, .leaves_room = truncates_prompts(job)};
}

/// A sentence about max_tokens that leave no room for any prompt where they are to, or an empty string.
std::string no_room_for_prompt(const SamplingParams& sampling, const PromptRoom& room);

/// Keeps the last tokens of a record's ids, as many as there is room for, and notes how many went. Scores
/// begin at the same token as before, or at the first that is left. What is cut already stays as it is.
void truncate_left(PromptRecord& record, const PromptRoom& room);

}  // namespace moerun
