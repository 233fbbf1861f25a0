#include "engine/row_in_work.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

namespace moerun {

namespace {

std::string sentence_of(const RowInWork::Fault& fault, uint64_t row) {
  return fault.kind == TokenFault::all_banned
             ? fmt::format(
                   "row {}: every token of the vocabulary is banned at position {}: they are "
                   "all stop tokens, and min_tokens keeps those away",
                   row, fault.position)
             : fmt::format(
                   "row {}: logits are not finite at position {}: the weights hold a NaN or an "
                   "infinity, or activations left the range of the model's dtype",
                   row, fault.position);
}

}  // namespace

RowResult RowInWork::take_result() {
  if (fault) {
    result.finish_reason = FinishReason::error;
    result.error = sentence_of(*fault, result.row);
    return std::move(result);
  }
  Answer& first = answers.front();
  result.token_ids = std::move(first.token_ids);
  result.text = std::move(first.text);
  result.finish_reason = first.finish_reason;
  result.logprobs = std::move(first.logprobs);
  result.top_logprobs = std::move(first.top_logprobs);
  result.num_top_logprobs = std::max(sampling.draw.logprobs, 0);
  result.more_answers.assign(std::make_move_iterator(answers.begin() + 1),
                             std::make_move_iterator(answers.end()));
  scores.move_to(result);
  if (result.endpoint != Endpoint::none && result.num_prompt_top_logprobs > 0)
    result.scored_tokens.assign(prompt.end() - static_cast<ptrdiff_t>(result.prompt_logprobs.size()),
                                prompt.end());
  return std::move(result);
}

}  // namespace moerun
