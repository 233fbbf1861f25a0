#include "engine/prompt_pacing.h"

#include <algorithm>
#include <cmath>

namespace moerun {

namespace {

/// Rows ahead, in multiples of what runs at once, from which a slower start pays.
constexpr double kWaves = 4;
/// Answers that must have ended before their mean length counts.
constexpr int64_t kEnough = 32;
/// A step's weights are read in any case; this many tokens more cost it next to nothing.
constexpr double kFewest = 256;
/// Above the mean rate, so that a step's share of short prompts does not leave room unused.
constexpr double kMargin = 1.03;

double mean(int64_t sum, int64_t count) { return static_cast<double>(sum) / static_cast<double>(count); }

}  // namespace

void PromptPacing::add(int64_t prompt_tokens, int64_t max_output_tokens) {
  ++num_added_;
  prompt_tokens_ += prompt_tokens;
  max_output_tokens_ += max_output_tokens;
}

void PromptPacing::finish(int64_t output_tokens) {
  ++num_finished_;
  output_tokens_ += output_tokens;
}

double PromptPacing::mean_output_tokens() const {
  if (num_added_ == 0) return 1;
  return std::max(
      num_finished_ < kEnough ? mean(max_output_tokens_, num_added_) : mean(output_tokens_, num_finished_),
      1.0);
}

int32_t PromptPacing::prompt_tokens(uint64_t rows_ahead) const {
  if (num_added_ == 0) return room_.max_num_batched_tokens;
  const double prompt = mean(prompt_tokens_, num_added_), output = mean_output_tokens();
  // On average half of a sequence's answer is there and its last block is half full.
  const double tokens = prompt + output / 2 + room_.block_size / 2.0 + kStepsKeptFree;
  const double at_once = std::min(static_cast<double>(room_.max_num_seqs),
                                  static_cast<double>(room_.num_blocks * room_.block_size) / tokens);
  if (static_cast<double>(rows_ahead) < kWaves * at_once) return room_.max_num_batched_tokens;
  const double rate = kMargin * at_once * prompt / output;
  return static_cast<int32_t>(
      std::min<double>(std::max(std::ceil(rate), kFewest), room_.max_num_batched_tokens));
}

}  // namespace moerun
