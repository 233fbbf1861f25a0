#include "engine/sequence.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>

namespace moerun {

namespace {

bool contains(const std::vector<int32_t>& ids, int32_t id) {
  return std::find(ids.begin(), ids.end(), id) != ids.end();
}

}  // namespace

Sequence::Sequence(PromptRecord record, std::vector<int32_t> prompt, const Tokenizer* tokenizer)
    : tokens(std::move(prompt)), sampling_(std::move(record.sampling)) {
  result_.row = record.row;
  result_.id = std::move(record.id);
  result_.id_kind = record.id_kind;
  result_.endpoint = record.endpoint;
  result_.model = std::move(record.model);
  result_.prompt_length = static_cast<int32_t>(tokens.size());
  result_.num_top_logprobs = std::max(sampling_.draw.logprobs, 0);
  if (sampling_.prompt_logprobs) result_.prompt_logprobs.push_back(std::numeric_limits<float>::quiet_NaN());
  if (tokenizer) text_.emplace(*tokenizer, sampling_.stop);
}

bool Sequence::append(const TokenResult& token, const AnswerLimits& limits) {
  tokens.push_back(token.token);
  if (sampling_.draw.logprobs >= 0) {
    result_.logprobs.push_back(token.logprob);
    for (size_t i = 0; i < token.top_tokens.size(); ++i)
      result_.top_logprobs.emplace_back(token.top_tokens[i], token.top_logprobs[i]);
    // A vocabulary may have fewer than were asked for.
    result_.top_logprobs.resize(result_.logprobs.size() * static_cast<size_t>(result_.num_top_logprobs),
                                {-1, std::numeric_limits<float>::quiet_NaN()});
  }
  const bool end = (!sampling_.ignore_eos && contains(limits.eos_token_ids, token.token)) ||
                   contains(sampling_.stop_token_ids, token.token);
  reason_ = FinishReason::stop;
  if (end) return true;
  // A stop string that is complete before min_tokens tokens are there ends nothing, then or later.
  if (text_ && text_->append(token.token, num_output_tokens() >= sampling_.min_tokens)) return true;
  reason_ = FinishReason::length;
  return !wants_token(limits);
}

void Sequence::fail(TokenFault fault, int32_t position) {
  tokens.resize(static_cast<size_t>(prompt_length()));
  text_.reset();
  reason_ = FinishReason::error;
  for (auto* const values : {&result_.logprobs, &result_.prompt_logprobs}) values->clear();
  result_.top_logprobs.clear();
  result_.num_top_logprobs = 0;
  result_.text.clear();
  result_.error = fault == TokenFault::all_banned
                      ? fmt::format(
                            "row {}: every token of the vocabulary is banned at position {}: they are "
                            "all stop tokens, and min_tokens keeps those away",
                            result_.row, position)
                      : fmt::format(
                            "row {}: logits are not finite at position {}: the weights hold a NaN or an "
                            "infinity, or activations left the range of the model's dtype",
                            result_.row, position);
}

RowResult Sequence::finish(FinishReason reason) {
  if (text_) result_.text = text_->finish();
  result_.finish_reason = reason;
  result_.token_ids.assign(tokens.begin() + prompt_length(), tokens.end());
  return std::move(result_);
}

}  // namespace moerun
