#include "engine/prompt_pacing.h"

#include <algorithm>
#include <cmath>

namespace moerun {

namespace {

/// Rows ahead, in multiples of what runs at once, from which a slower start pays.
constexpr double kWaves = 4;
/// Answers that must have ended before their mean length counts.
constexpr int64_t kEnough = 32;
/// Of what runs at once, how many parts begin one after the other where starts are spread.
constexpr double kParts = 16;
/// Above the mean rate, so that a step's share of short prompts does not leave room unused.
constexpr double kMargin = 1.03;

double mean(int64_t sum, int64_t count) { return static_cast<double>(sum) / static_cast<double>(count); }

}  // namespace

void PromptPacing::add(int64_t prompt_tokens, int64_t max_output_tokens, bool known) {
  ++num_added_;
  num_known_ += known;
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

double PromptPacing::at_once(double tokens) const {
  return std::min(static_cast<double>(room_.max_num_seqs),
                  static_cast<double>(room_.num_blocks * room_.block_size) /
                      (tokens + room_.block_size / 2.0 + kStepsKeptFree));
}

bool PromptPacing::spreads(uint64_t waiting, uint64_t left, double output) const {
  const double prompt = mean(prompt_tokens_, num_added_), spread = at_once(prompt + output / 2);
  if (static_cast<double>(waiting + left) >= kWaves * spread) return true;
  if (num_known_ < num_added_) return false;
  // In answers one after the other: with starts spread the last one begins when all others have had their
  // turn; else there are as many waves as it takes of those that have room together.
  const double rows = static_cast<double>(num_added_) + static_cast<double>(left);
  return rows / spread + 1 < std::ceil(rows / at_once(prompt + output));
}

int32_t PromptPacing::prompt_tokens(uint64_t waiting, uint64_t left) {
  if (num_added_ == 0) return room_.max_num_batched_tokens;
  const double prompt = mean(prompt_tokens_, num_added_), output = mean_output_tokens();
  if (!spreads(waiting, left, output)) return room_.max_num_batched_tokens;
  // On average half of a sequence's answer is there and its last block is half full.
  const double rate = kMargin * at_once(prompt + output / 2) * prompt / output;
  // Where all that run have room to their ends anyway, nothing is won by letting them begin one by one.
  const bool short_of_room = at_once(prompt + output) < at_once(prompt + output / 2);
  if (short_of_room && num_known_ == num_added_ && rate < kFewest) {
    // No more at a time than a part of what runs: else places would stand empty until so many are saved.
    const double part = prompt * std::max(at_once(prompt + output / 2) / kParts, 1.0);
    const double taken =
        std::min<double>(std::clamp<double>(part, room_.chunk, kFewest), room_.max_num_batched_tokens);
    saved_ += rate;
    if (saved_ < taken) return 0;
    saved_ -= taken;
    return static_cast<int32_t>(std::ceil(taken));
  }
  return static_cast<int32_t>(
      std::min<double>(std::ceil(std::max<double>(rate, kFewest)), room_.max_num_batched_tokens));
}

}  // namespace moerun
