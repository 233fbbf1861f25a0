#pragma once
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "engine/answer_text.h"
#include "engine/kv_cache.h"
#include "moerun/plan.h"
#include "moerun/record.h"

namespace moerun {

/// What of the model ends or bounds an answer.
struct AnswerLimits {
  int64_t max_model_len = 0;
  std::vector<int32_t> eos_token_ids;
};

/// A prompt and its growing answer. Thread contract: its leader's engine thread.
class Sequence {
 public:
  /// `record` is what the row asked (its text is not needed any more), `prompt` its ids, not empty.
  /// `tokenizer` may be null: the answer then has no text.
  Sequence(PromptRecord record, std::vector<int32_t> prompt, const Tokenizer* tokenizer);

  const SamplingParams& sampling() const { return sampling_; }
  uint64_t row() const { return result_.row; }
  int32_t prompt_length() const { return result_.prompt_length; }
  std::span<const int32_t> prompt() const { return {tokens.data(), static_cast<size_t>(prompt_length())}; }
  int32_t num_tokens() const { return static_cast<int32_t>(tokens.size()); }
  int32_t num_output_tokens() const { return num_tokens() - prompt_length(); }
  bool in_prompt() const { return num_computed < prompt_length(); }
  /// Whether an answer may grow at all: max_tokens 0 and prompts of the greatest length ask for scores alone.
  bool wants_token(const AnswerLimits& limits) const {
    return num_output_tokens() < sampling_.max_tokens && num_tokens() < limits.max_model_len;
  }
  /// Log-probabilities of the prompt that are known, the first token's (NaN) included.
  int32_t num_scored() const { return static_cast<int32_t>(result_.prompt_logprobs.size()); }

  std::span<const float> prompt_logprobs() const { return result_.prompt_logprobs; }
  /// The log-probabilities of the prompt's first tokens, as another prompt that begins alike has them; those
  /// that are known stay.
  void take_prompt_logprobs(std::span<const float> logprobs) {
    for (size_t i = result_.prompt_logprobs.size(); i < logprobs.size(); ++i) add_prompt_logprob(logprobs[i]);
  }
  void add_prompt_logprob(float logprob) { result_.prompt_logprobs.push_back(logprob); }
  /// Takes the next token of the answer; true when it is the last.
  bool append(const TokenResult& token, const AnswerLimits& limits);
  /// Ends the sequence with an error instead of an answer: the token at `position` could not be drawn or
  /// scored.
  void fail(TokenFault fault, int32_t position);
  /// The answer; the sequence is used up.
  RowResult finish(FinishReason reason);
  FinishReason finish_reason() const { return reason_; }

  std::vector<int32_t> tokens;  ///< prompt and answer so far
  int32_t num_computed = 0;     ///< tokens whose keys and values are in the cache
  KvBlocks kv;                  ///< where they are; the scheduler's KvCache owns the blocks
  /// The row that is computing what this prompt begins with too, when it was found to wait for it.
  std::optional<uint64_t> waits_for;

 private:
  SamplingParams sampling_;
  RowResult result_;
  std::optional<AnswerText> text_;
  FinishReason reason_ = FinishReason::length;
};

}  // namespace moerun
