#pragma once
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "grammar/grammar.h"
#include "moerun/sampling.h"
#include "text/thinking.h"
#include "text/tokenizer.h"

namespace moerun {

/// Which tokens a row's answers may have, of what its sampling says once and for all: shared by the row's
/// answers, each of which has an AnswerProgress.
class AnswerRules {
 public:
  /// What rules are made from. `tokenizer` may be null where nothing of the sampling needs one.
  struct Parts {
    const SamplingParams& sampling;
    Tokenizer* tokenizer = nullptr;
    int64_t vocab_size = 0;
    const std::vector<int32_t>& eos_token_ids;
    bool thinks = false;       ///< the answer begins with thoughts
    bool holds_calls = false;  ///< answers are held to calls of functions, by a grammar
  };
  /// Null where all tokens can be chosen. Throws BadInput where nothing could end an answer that has a form.
  static std::shared_ptr<AnswerRules> make(const Parts& parts);
  explicit AnswerRules(const Parts& parts);

  /// Of a mask: 32 tokens each.
  int32_t words() const { return (vocab_size_ + 31) / 32; }
  /// Where answers have a form or are held to calls: before they begin.
  void set_grammar(std::shared_ptr<const CompiledGrammar> grammar) { grammar_ = std::move(grammar); }

 private:
  friend class AnswerProgress;

  void add_bad_word(std::vector<int32_t> ids);
  /// Calls f(the last token) for each bad word whose other tokens the answer ends with.
  template <class F>
  void each_bad_word(std::span<const int32_t> answer, F f) const;
  bool is_end(int32_t id) const;

  int32_t vocab_size_;
  std::vector<uint32_t> allowed_;  // [words] all of the vocabulary where nothing is said
  bool all_allowed_;
  std::vector<std::vector<int32_t>> bad_words_;  // distinct ids, none of them empty
  std::vector<int32_t> ends_;                    // that end an answer
  std::shared_ptr<const CompiledGrammar> grammar_;
  std::optional<ThinkingMarkers> markers_;
  bool thinks_;
  int32_t thinking_budget_;
};

/// How far an answer has come in what its rules say. It follows from the answer's tokens alone. Thread
/// contract: one thread at a time.
class AnswerProgress {
 public:
  explicit AnswerProgress(std::shared_ptr<const AnswerRules> rules);

  /// The answer's next token.
  void take(int32_t token);
  /// Whether something is forbidden behind an answer's tokens: all that were taken.
  bool forbids(std::span<const int32_t> answer) const;
  /// Sets the bits of what can be chosen behind an answer's tokens (StepPlan::masks): none where the answer
  /// has a token that could not be chosen.
  void fill(std::span<const int32_t> answer, std::span<uint32_t> mask);
  int32_t words() const { return rules_->words(); }

 private:
  bool out_of_budget() const {
    return thinks_ && rules_->thinking_budget_ >= 0 && num_thoughts_ >= rules_->thinking_budget_;
  }
  void fill_thinking(std::span<uint32_t> mask) const;
  void fill_grammar(std::span<const int32_t> answer, std::span<uint32_t> mask);

  std::shared_ptr<const AnswerRules> rules_;
  bool thinks_;
  bool ended_ = false;        // an end was chosen, and ignored (ignore_eos)
  int32_t num_taken_ = 0;     // tokens
  int32_t num_thoughts_ = 0;  // tokens of thoughts, without the marker
  int32_t num_matched_ = 0;   // tokens that the matcher has seen, or that were thoughts
  std::optional<GrammarMatcher> matcher_;
};

}  // namespace moerun
