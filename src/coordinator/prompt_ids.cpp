#include "coordinator/prompt_ids.h"

#include <utility>

#include "job/sampling_fields.h"
#include "moerun/error.h"

namespace moerun {

void PromptIds::make(PromptRecord& record) {
  if (record.prompt_token_ids) return;
  if (!tokenizer_) throw BadInput("the model folder has no tokenizer.json: give prompt_token_ids");
  // A chat template writes the special tokens that a conversation has; a prompt gets its tokenizer's.
  record.prompt_token_ids = record.messages
                                ? tokenizer_->encode(chat_template_->render(*record.messages))
                                : tokenizer_->encode_prompt(record.prompt.value_or(std::string()));
}

void PromptIds::truncate_text(PromptRecord& record, const PromptRoom& room) {
  if (!record.error.empty() || record.prompt_token_ids) return;
  const auto most = static_cast<size_t>(room.most_prompt_tokens(record.sampling));
  // A text has no more tokens than bytes, but for what is put around it: who is passed over for that stands
  // by its text in the order, no more. A conversation is longer as its template writes it.
  if (record.prompt && record.prompt->size() <= most) return;
  PromptRecord cut = record;
  try {
    make(cut);
  } catch (const BadInput&) {
    return;
  }
  const size_t length = cut.prompt_token_ids->size();
  if (length <= most || !beyond_prompt(cut.sampling, length).empty()) return;
  truncate_left(cut, room);
  cut.prompt.reset(), cut.messages.reset();
  record = std::move(cut);
}

}  // namespace moerun
