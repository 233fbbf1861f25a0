#pragma once
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "engine/answer_text.h"
#include "engine/kv_cache.h"
#include "engine/row_in_work.h"
#include "engine/state_slots.h"
#include "moerun/plan.h"
#include "moerun/record.h"

namespace moerun {

/// What of the model and the job ends or bounds an answer.
struct AnswerLimits {
  int64_t max_model_len = 0;
  bool truncate_prompts = false;  ///< `input.truncate_prompt: left`
  std::vector<int32_t> eos_token_ids;
  /// Bytes of a token's routed experts (`output.routed_experts`), for which prompts are computed also where
  /// nothing else asks; 0: they are not kept.
  size_t routed_bytes = 0;
};

/// A prompt and its growing answer, one of the row's. A row begins as one sequence, which computes the
/// prompt; where it asks for several answers, the others are forked from it. Thread contract: its leader's
/// engine thread.
class Sequence {
 public:
  /// `record` is what the row asked (its text is not needed any more), `prompt` its ids, not empty.
  /// `tokenizer` may be null: the answer then has no text. `rules` are those of the record's sampling, null
  /// where there are none.
  Sequence(PromptRecord record, std::vector<int32_t> prompt, const Tokenizer* tokenizer,
           std::shared_ptr<AnswerRules> rules = nullptr);

  /// The row's other answers, 1 … n − 1, in their order: none of them has a token yet. Once.
  std::vector<Sequence> fork();
  /// How many answers the sequence stands for: all of the row's until it is forked.
  int32_t num_answers() const { return row_->forked ? 1 : sampling().n; }

  const SamplingParams& sampling() const { return row_->sampling; }
  uint64_t row() const { return row_->result.row; }
  const std::string& tools() const { return row_->tools; }  ///< PromptRecord::tools
  /// The row's result but for what comes from the model.
  const RowResult& asked() const { return row_->result; }
  int32_t index() const { return index_; }  ///< of the answer among the row's
  /// Tells the sequence from all others of a job.
  uint64_t key() const { return row() * kMaxAnswers + static_cast<uint64_t>(index_); }
  std::span<const int32_t> prompt() const { return row_->prompt; }
  int32_t prompt_length() const { return static_cast<int32_t>(row_->prompt.size()); }
  int32_t num_output_tokens() const { return static_cast<int32_t>(answer_.token_ids.size()); }
  int32_t num_tokens() const { return prompt_length() + num_output_tokens(); }
  /// Of prompt and answer.
  int32_t token(int32_t position) const {
    const int32_t behind = position - prompt_length();
    return behind < 0 ? row_->prompt[static_cast<size_t>(position)]
                      : answer_.token_ids[static_cast<size_t>(behind)];
  }
  bool in_prompt() const { return num_computed < prompt_length(); }
  /// Whether an answer may grow at all: max_tokens 0 and prompts of the greatest length ask for scores alone.
  bool wants_token(const AnswerLimits& limits) const {
    return num_output_tokens() < sampling().max_tokens && num_tokens() < limits.max_model_len;
  }
  /// Whether the row's answers have a form, whose grammar must be set before they begin.
  bool needs_grammar() const {
    return sampling().form.kind != AnswerForm::Kind::any || are_held_calls(tools());
  }
  void set_grammar(std::shared_ptr<const CompiledGrammar> grammar) {
    row_->rules->set_grammar(std::move(grammar));
  }
  /// Words of the mask that says what the next token can be; 0: it can be any.
  int32_t mask_words() const {
    return progress_ && progress_->forbids(answer_.token_ids) ? progress_->words() : 0;
  }
  /// AnswerProgress::fill.
  void fill_mask(std::span<uint32_t> mask) { progress_->fill(answer_.token_ids, mask); }
  /// The row has something that would be lost.
  bool begun() const { return row_->begun || row_->scores.any(); }

  /// Scores of the prompt's tokens, as far as they are known. Only the row's first answer has them computed.
  const PromptScores& scores() const { return row_->scores; }
  bool scored() const { return sampling().scores_prompt() && index_ == 0; }
  /// Position of the first token whose score is wanted and not known; the prompt's length where there is
  /// none.
  int32_t first_unscored() const {
    return scored() ? std::min(row_->scores.end(), prompt_length()) : prompt_length();
  }
  void add_score(const PromptScore& score) { row_->scores.add(score); }
  /// Those of the tokens before `end` that another prompt has, which begins alike and knows them.
  void take_scores(const PromptScores& from, int32_t end) {
    for (int32_t position = first_unscored(); position < end; ++position) add_score(from.at(position));
  }

  /// Takes the next token of the answer; true when it is the last.
  bool append(const TokenResult& token, const AnswerLimits& limits);
  /// RowResult::prompt_routed, of the row's first answer alone, and Answer::routed.
  void set_routed(std::vector<uint8_t> prompt, std::vector<uint8_t> answer) {
    if (index_ == 0) row_->result.prompt_routed = std::move(prompt);
    answer_.routed = std::move(answer);
  }
  /// Ends the sequence with an error instead of an answer: the token at `position` could not be drawn or
  /// scored.
  void fail(TokenFault fault, int32_t position);
  bool failed() const { return reason_ == FinishReason::error; }
  FinishReason finish_reason() const { return reason_; }
  /// Ends the answer, and the sequence is used up. The row's result, when this was the last of its answers.
  std::optional<RowResult> finish(FinishReason reason);

  int32_t num_computed = 0;  ///< tokens whose keys and values are in the cache
  KvBlocks kv;               ///< where they are; the scheduler's KvCache owns the blocks
  StateSlot state;           ///< behind them, of models with gated delta nets
  /// Sequence::key of the one that is computing what this prompt begins with too, when it was found to wait.
  std::optional<uint64_t> waits_for;

 private:
  Sequence(std::shared_ptr<RowInWork> row, int32_t index);

  std::shared_ptr<RowInWork> row_;
  int32_t index_ = 0;
  Answer answer_;
  std::optional<AnswerText> text_;
  std::optional<AnswerProgress> progress_;  // where the row has rules
  FinishReason reason_ = FinishReason::length;
};

}  // namespace moerun
