#pragma once
#include <optional>
#include <string>
#include <variant>

#include "coordinator/prompt_ids.h"
#include "engine/sequence.h"
#include "moerun/model_config.h"
#include "moerun/record.h"
#include "text/chat_template.h"
#include "text/tokenizer.h"

namespace moerun {

/// Turns rows of the input into sequences: chat template, tokenizer, and the checks that need both. What is
/// wrong with one row becomes that row's error. Thread contract: a leader's engine thread.
class Preparer {
 public:
  /// `tokenizer` may be null (a model folder without one, for token-id input): answers then have no text.
  Preparer(Tokenizer* tokenizer, const ChatTemplate* chat_template, AnswerLimits limits, int64_t vocab_size)
      : tokenizer_(tokenizer),
        chat_template_(chat_template),
        prompt_ids_(tokenizer, chat_template),
        limits_(std::move(limits)),
        vocab_size_(vocab_size) {}

  /// The row's sequence, or its answer when nothing is to be computed.
  std::variant<Sequence, RowResult> prepare(PromptRecord record);

 private:
  void truncate(PromptRecord& record) const;
  /// What is wrong where the experts of a row's tokens would be more than an answer can hold; else empty.
  std::string too_much_routed(const SamplingParams& sampling, size_t prompt_tokens) const;
  /// Whether the answer to a prompt begins with thoughts.
  bool thinks(SamplingParams::Thinking said, const std::vector<int32_t>& prompt) const;

  Tokenizer* tokenizer_;
  const ChatTemplate* chat_template_;
  PromptIds prompt_ids_;
  AnswerLimits limits_;
  int64_t vocab_size_;
};

}  // namespace moerun
