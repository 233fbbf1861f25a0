#pragma once
#include <cstdint>

#include "job/truncation.h"
#include "moerun/record.h"
#include "text/chat_template.h"
#include "text/tokenizer.h"

namespace moerun {

/// The token ids of rows, whatever form their prompts have. Thread contract: one thread.
class PromptIds {
 public:
  /// Both must outlive it. `tokenizer` may be null: a model folder without one, for token-id input.
  PromptIds(Tokenizer* tokenizer, const ChatTemplate* chat_template)
      : tokenizer_(tokenizer), chat_template_(chat_template) {}

  /// Sets `prompt_token_ids`, by chat template and tokenizer where they are not given. Throws BadInput.
  void make(PromptRecord& record);

  /// Where rows are put in an order and `input.truncate_prompt` is `left`, a text that loses its beginning
  /// stands by the ids that are left: it becomes them. Others stay as they are, and so does what has no ids:
  /// its leader says why.
  void truncate_text(PromptRecord& record, const PromptRoom& room);

 private:
  Tokenizer* tokenizer_;
  const ChatTemplate* chat_template_;
};

}  // namespace moerun
