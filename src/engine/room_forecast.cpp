#include "engine/room_forecast.h"

#include <algorithm>

namespace moerun {

bool RoomForecast::of_known_length(const SamplingParams& sampling) {
  return sampling.max_tokens <= 1 ||
         (sampling.ignore_eos && sampling.stop.empty() && sampling.stop_token_ids.empty() &&
          sampling.form.kind == AnswerForm::Kind::any);
}

void RoomForecast::end(const Sequence& sequence) {
  if (!of_known_length(sequence.sampling())) lengths_.end(sequence.num_output_tokens());
}

void RoomForecast::expect(const Sequence& sequence, int64_t own_tokens,
                          std::vector<ExpectedLength>& out) const {
  const int64_t prompt = sequence.prompt_length(), tokens = sequence.num_tokens();
  const int64_t most = std::min(prompt + sequence.sampling().max_tokens, max_model_len_);
  // A block is half empty in the mean.
  const int64_t holds = own_tokens + cache_.block_size() / 2;
  if (of_known_length(sequence.sampling()) || !lengths_.learned()) {
    out.push_back({.tokens = holds, .steps_left = std::max<int64_t>(most - tokens, 0)});
    return;
  }
  constexpr auto kParts = static_cast<double>(AnswerLengths::kQuantiles);
  double there = 1;  // the chance that it is, until the next of its lengths
  for (const int32_t length : lengths_.of(sequence.num_output_tokens())) {
    const double then = there - 1 / kParts;
    out.push_back({.tokens = own_tokens + cache_.block_size(),
                   .steps_left = std::max<int64_t>(std::min<int64_t>(prompt + length, most) - tokens, 0),
                   .weight = 1 / kParts,
                   .variance = there * (1 - there) - then * (1 - then)});
    there = then;
  }
}

void RoomForecast::begin(std::span<const Sequence* const> running) {
  if (lengths_.due()) {
    std::vector<int32_t> come;
    for (const Sequence* sequence : running)
      if (!of_known_length(sequence->sampling())) come.push_back(sequence->num_output_tokens());
    lengths_.learn(come);
  }
  forecast_.emplace();
  std::vector<ExpectedLength> expected;
  int64_t own_blocks = 0;
  for (const Sequence* sequence : running) {
    const auto shared = static_cast<int64_t>(cache_.num_shared(sequence->kv));
    own_blocks += static_cast<int64_t>(sequence->kv.device.size()) - shared;
    expect(*sequence, sequence->num_tokens() - shared * cache_.block_size(), expected);
  }
  for (const ExpectedLength& one : expected) forecast_->add(one);
  shared_tokens_ = (cache_.num_used() - own_blocks) * cache_.block_size();
}

bool RoomForecast::admit(const Sequence& next, int32_t shared) {
  std::vector<ExpectedLength> expected;
  expect(next, next.num_tokens() - shared / cache_.block_size() * cache_.block_size(), expected);
  for (const ExpectedLength& one : expected) forecast_->add(one);
  const double room = static_cast<double>(cache_.num_blocks() * cache_.block_size() - shared_tokens_);
  if (forecast_->peak() <= room) return true;
  for (const ExpectedLength& one : expected) forecast_->remove(one);
  return false;
}

}  // namespace moerun
