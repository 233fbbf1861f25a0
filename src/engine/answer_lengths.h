#pragma once
#include <algorithm>
#include <array>
#include <cstdint>
#include <span>
#include <vector>

namespace moerun {

/// How long answers are, learned from those that ended and from those that run: the share of answers that are
/// longer than so many tokens, by Kaplan and Meier ("Nonparametric Estimation from Incomplete Observations",
/// 1958). The answers that end first are the short ones; those that still run say so. Thread contract: the
/// leader's engine thread.
class AnswerLengths {
 public:
  /// What an answer will be is told by so many lengths, each as likely as the others.
  static constexpr size_t kQuantiles = 4;
  using Quantiles = std::array<int32_t, kQuantiles>;

  /// An answer ended with so many tokens.
  void end(int32_t tokens);
  /// Whether enough have ended since it has learned, or at all, to learn from.
  bool due() const { return num_ended_ >= std::max(next_, kEnough); }
  /// Learns from the answers that ended and from those that run, which have `running` tokens so far.
  void learn(std::span<const int32_t> running);
  /// Lengths that an answer will have that has `tokens` so far, ascending. Only when it has learned.
  Quantiles of(int32_t tokens) const;
  bool learned() const { return !quantiles_.empty(); }

 private:
  static constexpr int64_t kEnough = 32;

  std::vector<int64_t> ended_;        // [tokens]
  int64_t num_ended_ = 0, next_ = 0;  // answers; learn again from so many on
  std::vector<Quantiles> quantiles_;  // [tokens] of an answer that has come so far
};

}  // namespace moerun
