#include "engine/answer_lengths.h"

#include <algorithm>

namespace moerun {

void AnswerLengths::end(int32_t tokens) {
  const auto length = static_cast<size_t>(tokens);
  if (ended_.size() <= length) ended_.resize(length + 1);
  ++ended_[length];
  ++num_ended_;
}

void AnswerLengths::learn(std::span<const int32_t> running) {
  size_t lengths = ended_.size();
  for (const int32_t tokens : running) lengths = std::max(lengths, static_cast<size_t>(tokens) + 1);
  ended_.resize(lengths);
  std::vector<int64_t> come(lengths);  // answers that have come so far
  for (const int32_t tokens : running) ++come[static_cast<size_t>(tokens)];
  std::vector<double> longer(lengths);  // share of answers
  auto as_long =
      static_cast<double>(num_ended_ + static_cast<int64_t>(running.size()));  // that were looked at
  double share = 1;
  for (size_t length = 0; length < lengths; ++length) {
    const auto ended = static_cast<double>(ended_[length]);
    if (ended > 0) share *= 1 - ended / as_long;
    longer[length] = share;
    as_long -= ended + static_cast<double>(come[length]);
  }
  quantiles_.assign(lengths, {});
  for (size_t i = 0; i < kQuantiles; ++i) {
    const double part = 1 - (static_cast<double>(i) + 0.5) / kQuantiles;
    size_t end = 0;  // grows with what has come
    for (size_t tokens = 0; tokens < lengths; ++tokens) {
      end = std::max(end, tokens + 1);
      while (end < lengths && longer[end] > longer[tokens] * part) ++end;
      // What outgrows all that has ended may become twice as long.
      quantiles_[tokens][i] = static_cast<int32_t>(end < lengths ? end : 2 * lengths);
    }
  }
  next_ = num_ended_ + std::max<int64_t>(num_ended_ / 32, 1);
}

AnswerLengths::Quantiles AnswerLengths::of(int32_t tokens) const {
  const auto come = static_cast<size_t>(tokens);
  if (come < quantiles_.size()) return quantiles_[come];
  Quantiles out;
  out.fill(2 * tokens);
  return out;
}

}  // namespace moerun
