#include "engine/answer_rules.h"

#include <fmt/format.h>

#include <algorithm>
#include <string>

#include "job/sampling_fields.h"
#include "moerun/error.h"

namespace moerun {

namespace {

void set_bit(std::span<uint32_t> mask, int32_t id) { mask[static_cast<size_t>(id / 32)] |= 1U << id % 32; }
void clear_bit(std::span<uint32_t> mask, int32_t id) {
  mask[static_cast<size_t>(id / 32)] &= ~(1U << id % 32);
}

}  // namespace

std::shared_ptr<AnswerRules> AnswerRules::make(const Parts& parts) {
  if (!parts.sampling.restricts_tokens() && !parts.holds_calls) return nullptr;
  return std::make_shared<AnswerRules>(parts);
}

AnswerRules::AnswerRules(const Parts& parts)
    : vocab_size_(static_cast<int32_t>(parts.vocab_size)),
      allowed_(static_cast<size_t>(words())),
      all_allowed_(parts.sampling.allowed_token_ids.empty()),
      ends_(parts.eos_token_ids),
      markers_(parts.tokenizer ? thinking_markers(*parts.tokenizer) : std::nullopt),
      thinks_(parts.thinks && markers_),
      thinking_budget_(parts.sampling.thinking_budget) {
  if (all_allowed_) {
    std::fill(allowed_.begin(), allowed_.end(), ~0U);
    for (int32_t id = vocab_size_; id < words() * 32; ++id) clear_bit(allowed_, id);
  }
  for (const int32_t id : parts.sampling.allowed_token_ids) set_bit(allowed_, id);
  ends_.insert(ends_.end(), parts.sampling.stop_token_ids.begin(), parts.sampling.stop_token_ids.end());
  if (const auto need = tokenizer_need(parts.sampling); need && !parts.tokenizer)
    throw BadInput(fmt::format("{} the model folder's tokenizer.json, which is not there", need->what));
  if (thinking_budget_ >= 0 && !markers_)
    throw BadInput(fmt::format("thinking_budget: {}", kNoThinkingMarkers));
  if ((parts.sampling.form.kind != AnswerForm::Kind::any || parts.holds_calls) && ends_.empty())
    throw BadInput(
        "structured output needs a token that ends an answer: the model has no end-of-sequence id; "
        "give stop_token_ids");
  // As vLLM takes them: a word as it stands, and behind a space where that is as many tokens, the first of
  // them another.
  for (const std::string& word : parts.sampling.bad_words) {
    const std::vector<int32_t> plain = parts.tokenizer->encode(word);
    const size_t begin = std::min(word.find_first_not_of(" \t\n\v\f\r"), word.size());
    std::vector<int32_t> behind_space = parts.tokenizer->encode(" " + word.substr(begin));
    if (behind_space.size() == plain.size() && behind_space != plain && behind_space[0] != plain[0])
      add_bad_word(std::move(behind_space));
    add_bad_word(plain);
  }
}

void AnswerRules::add_bad_word(std::vector<int32_t> ids) {
  if (!ids.empty() && std::find(bad_words_.begin(), bad_words_.end(), ids) == bad_words_.end())
    bad_words_.push_back(std::move(ids));
}

template <class F>
void AnswerRules::each_bad_word(std::span<const int32_t> answer, F f) const {
  for (const std::vector<int32_t>& word : bad_words_) {
    const size_t others = word.size() - 1;
    if (others <= answer.size() &&
        std::equal(word.begin(), word.end() - 1, answer.end() - static_cast<ptrdiff_t>(others)))
      f(word.back());
  }
}

bool AnswerRules::is_end(int32_t id) const {
  return std::find(ends_.begin(), ends_.end(), id) != ends_.end();
}

AnswerProgress::AnswerProgress(std::shared_ptr<const AnswerRules> rules)
    : rules_(std::move(rules)), thinks_(rules_->thinks_) {}

void AnswerProgress::take(int32_t token) {
  ++num_taken_;
  if (!thinks_) {
    ended_ = ended_ || rules_->is_end(token);
    return;
  }
  num_matched_ = num_taken_;
  thinks_ = token != rules_->markers_->end;
  num_thoughts_ += thinks_ && token != rules_->markers_->begin;
}

bool AnswerProgress::forbids(std::span<const int32_t> answer) const {
  bool any = !rules_->all_allowed_ || rules_->grammar_ != nullptr || out_of_budget();
  rules_->each_bad_word(answer, [&](int32_t) { any = true; });
  return any;
}

void AnswerProgress::fill(std::span<const int32_t> answer, std::span<uint32_t> mask) {
  if (out_of_budget()) {
    std::fill(mask.begin(), mask.end(), 0);
    return set_bit(mask, rules_->markers_->end);
  }
  if (!rules_->grammar_)
    std::copy(rules_->allowed_.begin(), rules_->allowed_.end(), mask.begin());
  else if (thinks_)
    fill_thinking(mask);
  else
    fill_grammar(answer, mask);
  if (rules_->grammar_)
    for (size_t i = 0; i < mask.size(); ++i) mask[i] &= rules_->allowed_[i];
  rules_->each_bad_word(answer, [&](int32_t id) { clear_bit(mask, id); });
}

/// An answer does not end before it has begun.
void AnswerProgress::fill_thinking(std::span<uint32_t> mask) const {
  std::fill(mask.begin(), mask.end(), ~0U);
  for (const int32_t id : rules_->ends_) clear_bit(mask, id);
}

void AnswerProgress::fill_grammar(std::span<const int32_t> answer, std::span<uint32_t> mask) {
  if (ended_) {  // and nothing can follow
    std::fill(mask.begin(), mask.end(), 0);
    for (const int32_t id : rules_->ends_) set_bit(mask, id);
    return;
  }
  if (!matcher_) matcher_.emplace(rules_->grammar_, rules_->ends_);
  for (; num_matched_ < num_taken_; ++num_matched_) {
    const int32_t token = answer[static_cast<size_t>(num_matched_)];
    if (!matcher_->accept(token)) return std::fill(mask.begin(), mask.end(), 0);  // that row alone is lost
  }
  matcher_->fill(mask);
}

}  // namespace moerun
