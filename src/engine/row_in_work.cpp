#include "engine/row_in_work.h"

#include <fmt/format.h>

#include <algorithm>
#include <span>
#include <utility>

#include "text/chat_parts.h"

namespace moerun {

namespace {

/// The options of a row that keep tokens from being chosen.
std::string restrictions_of(const SamplingParams& sampling, bool holds_calls) {
  std::vector<std::string_view> names;
  if (!sampling.allowed_token_ids.empty()) names.emplace_back("allowed_token_ids");
  if (!sampling.bad_words.empty()) names.emplace_back("bad_words");
  if (sampling.form.kind != AnswerForm::Kind::any) names.emplace_back("structured_outputs");
  if (holds_calls) names.emplace_back("tools");
  if (sampling.min_tokens > 0) names.emplace_back("min_tokens");
  return fmt::format("{}", fmt::join(names, ", "));
}

std::string sentence_of(const RowInWork::Fault& fault, uint64_t row, const RowInWork& work) {
  const bool holds_calls = are_held_calls(work.tools);
  if (fault.kind == TokenFault::all_banned && (work.sampling.restricts_tokens() || holds_calls))
    return fmt::format("row {}: no token is left to choose at position {} by {}", row, fault.position,
                       restrictions_of(work.sampling, holds_calls));
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

std::optional<size_t> RowInWork::hidden_thoughts(const Answer& answer, const ThinkingMarkers& markers,
                                                 bool opened) const {
  const std::vector<int32_t>& ids = answer.token_ids;
  if (!sampling.skip_special_tokens || !tokenizer->is_special(markers.end)) return std::nullopt;
  if (!opened && (ids.empty() || ids.front() != markers.begin)) return std::nullopt;
  const auto end = std::find(ids.begin(), ids.end(), markers.end);
  if (end == ids.end()) return answer.text.size();
  const std::span thoughts(ids.begin(), end);
  return std::min(tokenizer->decode(thoughts, true).size(), answer.text.size());
}

ChatParts RowInWork::parts_of(const Answer& answer) const {
  if (result.endpoint != Endpoint::chat_completions || !tokenizer) return {};
  const std::optional<ThinkingMarkers> markers = thinking_markers(*tokenizer);
  if (!markers && functions.empty()) return {};
  // A marker and the line ends behind it are few tokens.
  constexpr size_t kTail = 8;
  const auto tail = std::span(prompt).last(std::min(kTail, prompt.size()));
  const bool opened = markers && opens_reasoning(tokenizer->decode(tail, false));
  const std::optional<size_t> hidden = markers ? hidden_thoughts(answer, *markers, opened) : std::nullopt;
  ChatParts parts = hidden ? split_behind_thoughts(answer.text, *hidden, functions)
                           : split_chat(answer.text, markers.has_value(), opened, functions);
  if (parts.has_reasoning)
    parts.reasoning_tokens = count_reasoning_tokens(answer.token_ids, opened, *markers);
  return parts;
}

RowResult RowInWork::take_result() {
  if (fault) {
    result.finish_reason = FinishReason::error;
    result.error = sentence_of(*fault, result.row, *this);
    result.prompt_routed.clear();
    return std::move(result);
  }
  Answer& first = answers.front();
  result.token_ids = std::move(first.token_ids);
  result.text = std::move(first.text);
  result.chat = std::move(first.chat);
  result.finish_reason = first.finish_reason;
  result.logprobs = std::move(first.logprobs);
  result.top_logprobs = std::move(first.top_logprobs);
  result.routed = std::move(first.routed);
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
