#include "engine/preparer.h"

#include <fmt/format.h>

#include "job/sampling_fields.h"
#include "moerun/error.h"

namespace moerun {

std::vector<int32_t> Preparer::ids_of(const PromptRecord& record) {
  if (record.prompt_token_ids) return *record.prompt_token_ids;
  if (!tokenizer_) throw BadInput("the model folder has no tokenizer.json: give prompt_token_ids");
  // A chat template writes the special tokens that a conversation has; a prompt gets its tokenizer's.
  if (record.messages) return tokenizer_->encode(chat_template_->render(*record.messages));
  return tokenizer_->encode_prompt(record.prompt.value_or(std::string()));
}

std::variant<Sequence, RowResult> Preparer::prepare(PromptRecord record) {
  RowResult failed{.row = record.row,
                   .id = record.id,
                   .id_kind = record.id_kind,
                   .endpoint = record.endpoint,
                   .model = record.model,
                   .error = record.error};
  if (!failed.error.empty()) return failed;
  try {
    std::vector<int32_t> ids = ids_of(record);
    failed.prompt_length = static_cast<int32_t>(ids.size());
    if (ids.empty()) throw BadInput("the prompt is empty");
    if (static_cast<int64_t>(ids.size()) > limits_.max_model_len)
      throw BadInput(fmt::format("the prompt has {} tokens, and model.max_model_len is {}", ids.size(),
                                 limits_.max_model_len));
    for (const int32_t id : ids)
      if (id < 0 || id >= vocab_size_)
        throw BadInput(fmt::format("token id {} is outside the vocabulary of {}", id, vocab_size_));
    if (std::string wrong = beyond_prompt(record.sampling, ids.size()); !wrong.empty()) throw BadInput(wrong);
    const bool scores = record.sampling.prompt_logprobs;
    Sequence sequence(std::move(record), std::move(ids), tokenizer_);
    if (!sequence.wants_token(limits_) && !scores) return sequence.finish(FinishReason::length).value();
    return sequence;
  } catch (const BadInput& fault) {
    failed.error = fault.what();
    return failed;
  }
}

}  // namespace moerun
