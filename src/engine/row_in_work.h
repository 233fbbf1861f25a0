#pragma once
#include <algorithm>
#include <cstdint>
#include <limits>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "engine/answer_rules.h"
#include "moerun/plan.h"
#include "moerun/record.h"
#include "text/tokenizer.h"
#include "text/tool_calls.h"

namespace moerun {

/// What a prompt's token got.
struct PromptScore {
  float logprob = 0;
  bool greedy = false;  ///< it is the model's first choice; only where that was asked for
  std::vector<std::pair<int32_t, float>> top;  ///< the most likely, best first, as many as were asked for
};

/// `result` is what a step's logit row of that token gave.
inline PromptScore score_of(const TokenResult& result) {
  PromptScore score{
      result.logprob, !result.top_tokens.empty() && result.top_tokens.front() == result.token, {}};
  score.top.reserve(result.top_tokens.size());
  for (size_t i = 0; i < result.top_tokens.size(); ++i)
    score.top.emplace_back(result.top_tokens[i], result.top_logprobs[i]);
  return score;
}

/// Scores of a prompt's tokens from a position on, as far as they are known.
class PromptScores {
 public:
  /// `sampling` asks for them, or there will be none. A prompt's first token has none: NaN.
  PromptScores() = default;
  explicit PromptScores(const SamplingParams& sampling)
      : begin_(sampling.prompt_logprobs_start),
        num_top_(std::max(sampling.prompt_logprobs, 0)),
        asked_(sampling.scores_prompt()),
        greedy_(sampling.prompt_is_greedy) {
    if (asked_ && begin_ == 0) add({std::numeric_limits<float>::quiet_NaN(), false, {}});
  }

  bool asked() const { return asked_; }
  /// Of the most likely tokens at each position.
  int32_t num_top() const { return num_top_; }
  /// Whether a token was scored.
  bool any() const { return end() > std::max(begin_, 1); }
  /// Positions that are known: [begin, end).
  int32_t begin() const { return begin_; }
  int32_t end() const { return begin_ + static_cast<int32_t>(logprobs_.size()); }
  PromptScore at(int32_t position) const {
    const auto i = static_cast<size_t>(position - begin_);
    const auto top = top_.begin() + static_cast<ptrdiff_t>(i) * num_top_;
    return {logprobs_[i], greedy_ && is_greedy_[i] != 0, {top, top + num_top_}};
  }
  /// The next. It may have more of the most likely tokens than are wanted here.
  void add(const PromptScore& score) {
    logprobs_.push_back(score.logprob);
    if (greedy_) is_greedy_.push_back(score.greedy);
    // A vocabulary may have fewer than were asked for.
    for (size_t i = 0; i < static_cast<size_t>(num_top_); ++i)
      top_.push_back(i < score.top.size() ? score.top[i]
                                          : std::pair(-1, std::numeric_limits<float>::quiet_NaN()));
  }
  /// Whether a prompt that begins alike finds here what it asks for from `position` on.
  bool serve(const PromptScores& other, int32_t position) const {
    return asked_ && begin_ <= position && (greedy_ || !other.greedy_) && num_top_ >= other.num_top_;
  }
  void move_to(RowResult& result) {
    result.prompt_logprobs = std::move(logprobs_);
    result.prompt_is_greedy = std::move(is_greedy_);
    result.num_prompt_top_logprobs = num_top_;
    result.prompt_top_logprobs = std::move(top_);
  }

 private:
  int32_t begin_ = 0, num_top_ = 0;
  bool asked_ = false, greedy_ = false;
  std::vector<float> logprobs_;
  std::vector<uint8_t> is_greedy_;              // as logprobs_ where greedy_, else empty
  std::vector<std::pair<int32_t, float>> top_;  // [logprobs_ * num_top_]
};

/// What the sequences that answer one row have in common, and what becomes of them. Thread contract: the
/// leader's engine thread.
struct RowInWork {
  RowResult result;  ///< but for what comes from the model
  SamplingParams sampling;
  std::vector<int32_t> prompt;
  const Tokenizer* tokenizer = nullptr;
  std::shared_ptr<AnswerRules> rules;  ///< null: all tokens can be chosen
  std::string tools;                   ///< the record's
  ToolFunctions functions;             ///< of `tools`
  PromptScores scores;
  bool forked = false;          ///< each answer has a sequence of its own
  bool begun = false;           ///< an answer has a token
  int32_t num_finished = 0;     ///< answers
  std::vector<Answer> answers;  ///< [n]
  struct Fault {
    int32_t answer = 0;
    TokenFault kind = TokenFault::none;
    int32_t position = 0;
  };
  std::optional<Fault> fault;  ///< of the first answer that has one

  /// Bytes of thoughts in an answer's text, where that leaves their markers out: they are special tokens.
  std::optional<size_t> hidden_thoughts(const Answer& answer, const ThinkingMarkers& markers,
                                        bool opened) const;
  /// What the text of a chat's answer consists of.
  ChatParts parts_of(const Answer& answer) const;
  /// The result of all answers.
  RowResult take_result();
};

}  // namespace moerun
