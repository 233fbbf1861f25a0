#include "engine/sequence.h"

#include <algorithm>
#include <limits>

namespace moerun {

namespace {

bool contains(const std::vector<int32_t>& ids, int32_t id) {
  return std::find(ids.begin(), ids.end(), id) != ids.end();
}

std::shared_ptr<RowInWork> row_of(PromptRecord record, std::vector<int32_t> prompt,
                                  const Tokenizer* tokenizer, std::shared_ptr<AnswerRules> rules) {
  auto row = std::make_shared<RowInWork>();
  row->sampling = std::move(record.sampling);
  row->prompt = std::move(prompt);
  row->tokenizer = tokenizer;
  row->rules = std::move(rules);
  row->scores = PromptScores(row->sampling);
  row->forked = row->sampling.n == 1;
  row->answers.resize(static_cast<size_t>(row->sampling.n));
  row->result.row = record.row;
  row->result.id = std::move(record.id);
  row->result.id_kind = record.id_kind;
  row->result.part = record.part;
  row->result.endpoint = record.endpoint;
  row->result.model = std::move(record.model);
  row->result.prompt_truncated = record.prompt_truncated;
  row->tools = std::move(record.tools);
  row->functions = ToolFunctions(row->tools);
  if (record.echo)
    row->result.echo =
        record.prompt && record.prompt_truncated <= 0
            ? std::move(*record.prompt)
            : (tokenizer ? tokenizer->decode(row->prompt, row->sampling.skip_special_tokens) : std::string());
  row->result.prompt_length = static_cast<int32_t>(row->prompt.size());
  return row;
}

}  // namespace

Sequence::Sequence(PromptRecord record, std::vector<int32_t> prompt, const Tokenizer* tokenizer,
                   std::shared_ptr<AnswerRules> rules)
    : Sequence(row_of(std::move(record), std::move(prompt), tokenizer, std::move(rules)), 0) {}

Sequence::Sequence(std::shared_ptr<RowInWork> row, int32_t index) : row_(std::move(row)), index_(index) {
  if (row_->tokenizer)
    text_.emplace(*row_->tokenizer, AnswerText::Options{.stop = sampling().stop,
                                                        .include_stop = sampling().include_stop_str_in_output,
                                                        .skip_special = sampling().skip_special_tokens});
  if (row_->rules) progress_.emplace(row_->rules);
}

std::vector<Sequence> Sequence::fork() {
  row_->forked = true;
  std::vector<Sequence> others;
  others.reserve(static_cast<size_t>(sampling().n - 1));
  for (int32_t index = 1; index < sampling().n; ++index) others.push_back(Sequence(row_, index));
  return others;
}

bool Sequence::append(const TokenResult& token, const AnswerLimits& limits) {
  row_->begun = true;
  answer_.token_ids.push_back(token.token);
  if (progress_) progress_->take(token.token);
  if (sampling().draw.logprobs >= 0) {
    answer_.logprobs.push_back(token.logprob);
    for (size_t i = 0; i < token.top_tokens.size(); ++i)
      answer_.top_logprobs.emplace_back(token.top_tokens[i], token.top_logprobs[i]);
    // A vocabulary may have fewer than were asked for.
    answer_.top_logprobs.resize(answer_.logprobs.size() * static_cast<size_t>(sampling().draw.logprobs),
                                {-1, std::numeric_limits<float>::quiet_NaN()});
  }
  const bool end = (!sampling().ignore_eos && contains(limits.eos_token_ids, token.token)) ||
                   contains(sampling().stop_token_ids, token.token);
  reason_ = FinishReason::stop;
  if (end) {
    // The token that ends an answer is none of its text, as in vLLM, unless what ends it is to stay.
    if (text_ && sampling().include_stop_str_in_output) text_->append(token.token, false);
    return true;
  }
  // A stop string that is complete before min_tokens tokens are there ends nothing, then or later.
  if (text_ && text_->append(token.token, num_output_tokens() >= sampling().min_tokens)) return true;
  reason_ = FinishReason::length;
  return !wants_token(limits);
}

void Sequence::fail(TokenFault fault, int32_t position) {
  reason_ = FinishReason::error;
  if (!row_->fault || row_->fault->answer > index_) row_->fault = {index_, fault, position};
}

std::optional<RowResult> Sequence::finish(FinishReason reason) {
  if (text_) answer_.text = text_->finish();
  answer_.chat = row_->parts_of(answer_);
  answer_.finish_reason = reason;
  const auto stands_for = static_cast<size_t>(num_answers());  // none of the others has a token
  for (size_t i = 0; i < stands_for; ++i) row_->answers[static_cast<size_t>(index_) + i] = answer_;
  row_->num_finished += static_cast<int32_t>(stands_for);
  if (row_->num_finished < sampling().n) return std::nullopt;
  return row_->take_result();
}

}  // namespace moerun
