#include "engine/preparer.h"

#include <fmt/format.h>

#include <algorithm>

#include "job/sampling_fields.h"
#include "job/truncation.h"
#include "moerun/error.h"

namespace moerun {

void Preparer::truncate(PromptRecord& record) const {
  const PromptRoom room{limits_.max_model_len, limits_.truncate_prompts};
  if (!room.cuts(record.sampling)) return;
  // Of a row that was cut before, both were looked at then.
  const size_t length = record.prompt_token_ids->size();
  for (const std::string& wrong :
       {no_room_for_prompt(record.sampling, room),
        record.prompt_truncated < 0 ? beyond_prompt(record.sampling, length) : std::string()})
    if (!wrong.empty()) throw BadInput(wrong);
  truncate_left(record, room);
}

bool Preparer::thinks(SamplingParams::Thinking said, const std::vector<int32_t>& prompt) const {
  using Thinking = SamplingParams::Thinking;
  const auto markers = tokenizer_ ? thinking_markers(*tokenizer_) : std::nullopt;
  if (!markers) return false;
  // A prompt may have begun the thoughts, or have ended them: then no more than white space follows.
  const auto last = std::find_if(prompt.rbegin(), prompt.rend(),
                                 [&](int32_t id) { return id == markers->begin || id == markers->end; });
  if (last != prompt.rend() && *last == markers->begin) return true;
  const bool ended = last != prompt.rend() && std::all_of(prompt.rbegin(), last, [&](int32_t id) {
                       return tokenizer_->token_bytes(id).find_first_not_of(" \n") == std::string_view::npos;
                     });
  if (ended || said == Thinking::no_conversation || said == Thinking::off) return false;
  return said == Thinking::on || chat_template_->mentions("enable_thinking");
}

std::string Preparer::too_much_routed(const SamplingParams& sampling, size_t prompt_tokens) const {
  constexpr uint64_t kMostBytes = uint64_t{512} << 20;  // of a row: an answer is sealed, and travels, whole
  const uint64_t room = static_cast<uint64_t>(limits_.max_model_len) - prompt_tokens;
  const uint64_t answer = std::min(room, static_cast<uint64_t>(sampling.max_tokens));
  const uint64_t tokens = prompt_tokens + static_cast<uint64_t>(sampling.n) * answer;
  if (tokens * limits_.routed_bytes <= kMostBytes) return "";
  return fmt::format(
      "output.routed_experts: the prompt of {} tokens and {} answers of up to {} have {} bytes a token, and "
      "a "
      "row may have {} MiB: ask for fewer answers (n) or tokens (max_tokens)",
      prompt_tokens, sampling.n, answer, limits_.routed_bytes, kMostBytes >> 20);
}

std::variant<Sequence, RowResult> Preparer::prepare(PromptRecord record) {
  RowResult failed{.row = record.row,
                   .id = record.id,
                   .id_kind = record.id_kind,
                   .part = record.part,
                   .endpoint = record.endpoint,
                   .model = record.model,
                   .prompt_truncated = limits_.truncate_prompts ? 0 : -1,
                   .error = record.error};
  if (!failed.error.empty()) return failed;
  try {
    prompt_ids_.make(record);
    truncate(record);
    std::vector<int32_t>& ids = *record.prompt_token_ids;
    failed.prompt_length = static_cast<int32_t>(ids.size());
    failed.prompt_truncated = record.prompt_truncated;
    if (ids.empty()) throw BadInput("the prompt is empty");
    if (static_cast<int64_t>(ids.size()) > limits_.max_model_len)
      throw BadInput(fmt::format("the prompt has {} tokens, and model.max_model_len is {}", ids.size(),
                                 limits_.max_model_len));
    for (const int32_t id : ids)
      if (id < 0 || id >= vocab_size_)
        throw BadInput(fmt::format("token id {} is outside the vocabulary of {}", id, vocab_size_));
    if (std::string wrong = beyond_prompt(record.sampling, ids.size()); !wrong.empty()) throw BadInput(wrong);
    const bool computes = record.sampling.scores_prompt() || limits_.routed_bytes > 0;
    if (std::string wrong = too_much_routed(record.sampling, ids.size()); !wrong.empty())
      throw BadInput(wrong);
    const bool holds_calls = are_held_calls(record.tools);
    auto rules = AnswerRules::make({.sampling = record.sampling,
                                    .tokenizer = tokenizer_,
                                    .vocab_size = vocab_size_,
                                    .eos_token_ids = limits_.eos_token_ids,
                                    .thinks = (record.sampling.restricts_tokens() || holds_calls) &&
                                              thinks(record.sampling.thinking, ids),
                                    .holds_calls = holds_calls});
    std::vector<int32_t> prompt = std::move(ids);
    Sequence sequence(std::move(record), std::move(prompt), tokenizer_, std::move(rules));
    if (!sequence.wants_token(limits_) && !computes) return sequence.finish(FinishReason::length).value();
    return sequence;
  } catch (const BadInput& fault) {
    failed.error = fault.what();
    return failed;
  }
}

}  // namespace moerun
