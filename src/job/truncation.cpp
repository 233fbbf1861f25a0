#include "job/truncation.h"

#include <fmt/format.h>

#include <algorithm>

namespace moerun {

int64_t PromptRoom::most_prompt_tokens(const SamplingParams& sampling) const {
  int64_t most = leaves_room ? max_model_len - sampling.max_tokens : INT64_MAX;
  if (const int32_t asked = sampling.truncate_prompt_tokens; asked != 0)
    most = std::min(most, asked < 0 ? max_model_len : asked);
  return most;
}

std::string no_room_for_prompt(const SamplingParams& sampling, const PromptRoom& room) {
  if (room.most_prompt_tokens(sampling) > 0) return "";
  return fmt::format(
      "max_tokens is {}, and model.max_model_len {}: input.truncate_prompt: left keeps room for the whole "
      "answer, and there is none for a prompt",
      sampling.max_tokens, room.max_model_len);
}

void truncate_left(PromptRecord& record, const PromptRoom& room) {
  if (record.prompt_truncated >= 0 || !room.cuts(record.sampling)) return;
  std::vector<int32_t>& ids = *record.prompt_token_ids;
  const int64_t most = room.most_prompt_tokens(record.sampling);
  const int64_t dropped = std::max<int64_t>(static_cast<int64_t>(ids.size()) - most, 0);
  ids.erase(ids.begin(), ids.begin() + dropped);
  record.prompt_truncated = static_cast<int32_t>(dropped);
  int32_t& start = record.sampling.prompt_logprobs_start;
  start = std::max(start - record.prompt_truncated, 0);
}

}  // namespace moerun
