#include "engine/repeated_rows.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "job/answer_key.h"

namespace moerun {

namespace {

size_t bytes_of(const auto& answer) {
  return answer.token_ids.size() * sizeof(int32_t) + answer.text.size() + answer.chat.tool_calls.size() +
         answer.logprobs.size() * sizeof(float) +
         answer.top_logprobs.size() * sizeof(answer.top_logprobs[0]) + answer.routed.size();
}

/// Of memory, about.
size_t bytes_of_row(const RowResult& result) {
  size_t bytes = sizeof result + result.id.size() + result.model.size() + result.error.size() +
                 bytes_of(result) + result.prompt_logprobs.size() * sizeof(float) +
                 result.prompt_is_greedy.size() + result.prompt_routed.size() +
                 result.prompt_top_logprobs.size() * sizeof(result.prompt_top_logprobs[0]) +
                 result.scored_tokens.size() * sizeof(int32_t) + result.echo.value_or("").size();
  for (const Answer& answer : result.more_answers) bytes += sizeof answer + bytes_of(answer);
  return bytes;
}

/// The answer of a row as that of another of its kind.
RowResult answer_of(const RowResult& row, const RowResult& from) {
  RowResult result = from;
  result.row = row.row;
  result.id = row.id;
  result.id_kind = row.id_kind;
  result.part = row.part;
  result.endpoint = row.endpoint;
  result.model = row.model;
  result.echo = row.echo;
  result.prompt_truncated = row.prompt_truncated;
  // What is wrong with logits names the row.
  if (const std::string name = fmt::format("row {}: ", from.row); result.error.starts_with(name))
    result.error = fmt::format("row {}: {}", row.row, result.error.substr(name.size()));
  return result;
}

}  // namespace

RepeatedRows::Turn RepeatedRows::add(const Sequence& sequence, RowResult& result) {
  const std::span<const int32_t> prompt = sequence.prompt();
  if (!std::equal(prompt.begin(), prompt.end(), prompt_.begin(), prompt_.end())) {
    forget_prompt();
    prompt_.assign(prompt.begin(), prompt.end());
  }
  std::optional<std::string> key = answer_key(sequence.sampling());
  if (!key) return Turn::computes;
  // What is made of the same tokens: a chat's calls of functions, a completion's prompt.
  const RowResult& asked = sequence.asked();
  *key += fmt::format("{} {} {}", static_cast<int>(asked.endpoint), asked.echo.has_value(), sequence.tools());
  if (of_prompt_.size() >= kMostKinds && !of_prompt_.contains(*key)) forget_prompt();
  std::shared_ptr<Kind>& kind = of_prompt_[*key];
  if (!kind) {
    kind = std::make_shared<Kind>(Kind{.key = *key, .row = sequence.row()});
    computing_.emplace(kind->row, kind);
    return Turn::computes;
  }
  if (kind->answer) {
    result = answer_of(sequence.asked(), *kind->answer);
    return Turn::answered;
  }
  kind->waiting.push_back(sequence.asked());
  waiting_bytes_ += bytes_of_row(kind->waiting.back());
  return Turn::waits;
}

std::vector<RowResult> RepeatedRows::finish(const RowResult& result) {
  const auto at = computing_.find(result.row);
  if (at == computing_.end()) return {};
  const std::shared_ptr<Kind> kind = std::move(at->second);
  computing_.erase(at);
  std::vector<RowResult> answers;
  answers.reserve(kind->waiting.size());
  for (const RowResult& row : kind->waiting) {
    waiting_bytes_ -= bytes_of_row(row);
    answers.push_back(answer_of(row, result));
  }
  kind->waiting = {};
  if (!kind->of_last_prompt) return answers;
  const size_t bytes = bytes_of_row(result);
  if (answer_bytes_ + bytes > kMostBytes) {  // the next of its kind is computed
    of_prompt_.erase(kind->key);
  } else {
    answer_bytes_ += bytes;
    kind->answer = result;
  }
  return answers;
}

void RepeatedRows::forget_prompt() {
  for (const auto& [key, kind] : of_prompt_) {
    kind->of_last_prompt = false;
    if (kind->waiting.empty()) computing_.erase(kind->row);
  }
  of_prompt_.clear();
  answer_bytes_ = 0;
}

}  // namespace moerun
