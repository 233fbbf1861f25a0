#pragma once
#include <cstdint>

namespace moerun {

/// How many prompt tokens a step should take at most.
///
/// A job that takes prompts as fast as it can starts its sequences together, and where answers are of like
/// lengths they end together too: steps of prompts alone, then steps of answers alone, and all keys and
/// values at their longest at the same time. With `at_once` sequences of `output` tokens, one in `output /
/// at_once` steps makes room for the next prompt when they are spread evenly; taking prompts at that rate
/// from the start spreads them. The first answers come later for it, so a job of few rows takes prompts as
/// they come.
///
/// Lengths are means of the sequences seen; an answer's is its max_tokens until enough have ended. Where
/// every row says how long its answer will be, prompts are taken at that rate however low it is: some steps
/// take none. Thread contract: the leader's engine thread.
class PromptPacing {
 public:
  struct Room {
    int32_t max_num_seqs = 0;
    int32_t max_num_batched_tokens = 0;
    int32_t block_size = 64;
    int64_t num_blocks = 0;  ///< of block_size tokens, in the key/value cache
    int32_t chunk = 0;       ///< SchedulerOptions::States::chunk: fewer tokens of a prompt are none
  };
  explicit PromptPacing(const Room& room) : room_(room) {}

  /// Steps for which blocks are kept free when a sequence is admitted: admitting what would soon be preempted
  /// wastes work.
  static constexpr int64_t kStepsKeptFree = 8;
  /// A step's weights are read in any case; this many tokens more cost it next to nothing.
  static constexpr int32_t kFewest = 256;

  /// `known`: the answer will have that many.
  void add(int64_t prompt_tokens, int64_t max_output_tokens, bool known);
  void finish(int64_t output_tokens);
  /// Of an answer; of as many as may be asked for until enough have ended.
  double mean_output_tokens() const;
  /// Of the next step. Rows that this group will still begin: `waiting` of those that were added, and `left`
  /// that will be.
  int32_t prompt_tokens(uint64_t waiting, uint64_t left);

 private:
  bool spreads(uint64_t waiting, uint64_t left, double output) const;
  /// Sequences that run at once where each holds so many tokens in the mean.
  double at_once(double tokens) const;

  Room room_;
  int64_t num_added_ = 0, num_known_ = 0, prompt_tokens_ = 0, max_output_tokens_ = 0;
  int64_t num_finished_ = 0, output_tokens_ = 0;
  double saved_ = 0;  // prompt tokens that the steps before left
};

}  // namespace moerun
