#include "job/truncation.h"

#include <fmt/format.h>

#include <algorithm>

namespace moerun {

std::string no_room_for_prompt(const SamplingParams& sampling, int64_t max_model_len) {
  if (most_prompt_tokens(sampling, max_model_len) > 0) return "";
  return fmt::format(
      "max_tokens is {}, and model.max_model_len {}: input.truncate_prompt: left keeps room for the whole "
      "answer, and there is none for a prompt",
      sampling.max_tokens, max_model_len);
}

void truncate_left(PromptRecord& record, int64_t max_model_len) {
  if (record.prompt_truncated >= 0) return;
  std::vector<int32_t>& ids = *record.prompt_token_ids;
  const int64_t most = most_prompt_tokens(record.sampling, max_model_len);
  const int64_t dropped = std::max<int64_t>(static_cast<int64_t>(ids.size()) - most, 0);
  ids.erase(ids.begin(), ids.begin() + dropped);
  record.prompt_truncated = static_cast<int32_t>(dropped);
  int32_t& start = record.sampling.prompt_logprobs_start;
  start = std::max(start - record.prompt_truncated, 0);
}

}  // namespace moerun
