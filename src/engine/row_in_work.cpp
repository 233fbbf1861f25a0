#include "engine/row_in_work.h"

#include <fmt/format.h>

#include <algorithm>
#include <span>
#include <utility>

#include "text/chat_parts.h"

namespace moerun {

namespace {

/// The options of a row that keep tokens from being chosen.
std::string restrictions_of(const SamplingParams& sampling) {
  std::vector<std::string_view> names;
  if (!sampling.allowed_token_ids.empty()) names.emplace_back("allowed_token_ids");
  if (!sampling.bad_words.empty()) names.emplace_back("bad_words");
  if (sampling.form.kind != AnswerForm::Kind::any) names.emplace_back("structured_outputs");
  if (sampling.min_tokens > 0) names.emplace_back("min_tokens");
  return fmt::format("{}", fmt::join(names, ", "));
}

std::string sentence_of(const RowInWork::Fault& fault, uint64_t row, const SamplingParams& sampling) {
  if (fault.kind == TokenFault::all_banned && sampling.restricts_tokens())
    return fmt::format("row {}: no token is left to choose at position {} by {}", row, fault.position,
                       restrictions_of(sampling));
  return fault.kind == TokenFault::all_banned
             ? fmt::format(
                   "row {}: every token of the vocabulary is banned at position {}: they are "
                   "all stop tokens, and min_tokens keeps those away",
                   row, fault.position)
             : fmt::format(
                   "row {}: logits are not finite at position {}: the weights hold a NaN or an "
                   "infinity, or activations left the range of the model's dtype",
                   row, fault.position);
}

}  // namespace

ChatParts RowInWork::parts_of(const Answer& answer) const {
  if (result.endpoint != Endpoint::chat_completions || !tokenizer) return {};
  const std::optional<ThinkingMarkers> markers = thinking_markers(*tokenizer);
  if (!markers && tools.empty()) return {};
  // A marker and the line ends behind it are few tokens.
  constexpr size_t kTail = 8;
  const auto tail = std::span(prompt).last(std::min(kTail, prompt.size()));
  const bool opened = markers && opens_reasoning(tokenizer->decode(tail, false));
  ChatParts parts = split_chat(answer.text, markers.has_value(), opened, ToolFunctions(tools));
  if (parts.has_reasoning)
    parts.reasoning_tokens = count_reasoning_tokens(answer.token_ids, opened, *markers);
  return parts;
}

RowResult RowInWork::take_result() {
  if (fault) {
    result.finish_reason = FinishReason::error;
    result.error = sentence_of(*fault, result.row, sampling);
    return std::move(result);
  }
  Answer& first = answers.front();
  result.token_ids = std::move(first.token_ids);
  result.text = std::move(first.text);
  result.chat = std::move(first.chat);
  result.finish_reason = first.finish_reason;
  result.logprobs = std::move(first.logprobs);
  result.top_logprobs = std::move(first.top_logprobs);
  result.num_top_logprobs = std::max(sampling.draw.logprobs, 0);
  result.more_answers.assign(std::make_move_iterator(answers.begin() + 1),
                             std::make_move_iterator(answers.end()));
  scores.move_to(result);
  if (result.endpoint != Endpoint::none && (result.num_prompt_top_logprobs > 0 || result.echo))
    result.scored_tokens.assign(prompt.end() - static_cast<ptrdiff_t>(result.prompt_logprobs.size()),
                                prompt.end());
  return std::move(result);
}

}  // namespace moerun
