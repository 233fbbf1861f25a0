// What running sequences will hold, against a walk through all steps; and what the scheduler makes of it
// where the number of sequences is left to it.
#include "engine/length_forecast.h"

#include <algorithm>
#include <random>

#include "engine/scheduler.h"
#include "tests/catch.h"

using namespace moerun;

namespace {

int64_t walked_peak(std::vector<ExpectedLength> sequences) {
  int64_t peak = 0;
  while (!sequences.empty()) {
    int64_t tokens = 0;
    for (const ExpectedLength& s : sequences) tokens += s.tokens;
    peak = std::max(peak, tokens);
    std::erase_if(sequences, [](const ExpectedLength& s) { return s.steps_left == 0; });
    for (ExpectedLength& s : sequences) ++s.tokens, --s.steps_left;
  }
  return peak;
}

constexpr int32_t kPrompt = 64, kBlock = 16, kAtFirst = 16;

struct Job {
  int rows, answer, max_tokens;
  int32_t num_seqs_at_first = kAtFirst;
};

struct Outcome {
  int64_t most_running = 0, preemptions = 0;
  int64_t most_running_of_unknown = 0;  // before the first answer had ended
};

/// `rows` prompts whose answers end after `answer` tokens, in a cache of 200 blocks.
Outcome run(const Job& job) {
  constexpr int32_t kEnd = 7;
  Scheduler scheduler({.max_num_seqs = 1000,
                       .num_seqs_at_first = job.num_seqs_at_first,
                       .max_num_batched_tokens = 4096,
                       .block_size = kBlock,
                       .num_blocks = 200,
                       .limits = {.max_model_len = 2048, .eos_token_ids = {kEnd}}});
  Outcome outcome;
  size_t answers = 0;
  for (int row = 0; row < job.rows || !scheduler.idle();) {
    for (; row < job.rows && scheduler.num_waiting() < kAtFirst; ++row) {
      PromptRecord record{.row = static_cast<uint64_t>(row)};
      record.sampling.max_tokens = job.max_tokens;
      scheduler.add({std::move(record), std::vector<int32_t>(kPrompt, 1), nullptr});
    }
    scheduler.set_rows_left(static_cast<uint64_t>(job.rows - row));
    const StepPlan plan = scheduler.schedule();
    REQUIRE(plan.num_tokens() > 0);
    outcome.most_running = std::max(outcome.most_running, scheduler.num_running());
    if (answers == 0) outcome.most_running_of_unknown = outcome.most_running;
    std::vector<TokenResult> results(plan.logit_rows.size());
    for (size_t i = 0; i < results.size(); ++i)
      results[i].token = plan.logit_rows[i].position + 1 >= kPrompt + job.answer ? kEnd : 1;
    answers += scheduler.postprocess(plan, results).size();
  }
  outcome.preemptions = scheduler.num_preemptions();
  return outcome;
}

}  // namespace

TEST_CASE("length forecast: the peak is that of a walk through all steps", "[engine]") {
  std::mt19937_64 random(std::random_device{}());
  for (int round = 0; round < 300; ++round) {
    std::vector<ExpectedLength> sequences(random() % 20);
    for (ExpectedLength& s : sequences)
      s = {.tokens = static_cast<int64_t>(random() % 50), .steps_left = static_cast<int64_t>(random() % 40)};
    LengthForecast forecast(sequences);
    for (int more = 0; more < 4; ++more) {
      const ExpectedLength next{.tokens = static_cast<int64_t>(random() % 50),
                                .steps_left = static_cast<int64_t>(random() % 40)};
      sequences.push_back(next);
      REQUIRE(forecast.peak_with(next) == walked_peak(sequences));
      forecast.add(next);
    }
  }
}

TEST_CASE("scheduler: as many sequences as have room until they end", "[engine]") {
  // 3,200 tokens: 50 prompts, and 20 of them with answers of 96 tokens (and half a block).
  const Outcome together = run({.rows = 40, .answer = 96, .max_tokens = 96});
  CHECK(together.preemptions == 0);
  CHECK(together.most_running > kAtFirst);
  CHECK(together.most_running <= 20);
  // Without the forecast all come in that have room now, and are sent away when they grow.
  const Outcome free = run({.rows = 40, .answer = 96, .max_tokens = 96, .num_seqs_at_first = 1000});
  CHECK(free.most_running > 30);
  CHECK(free.preemptions > 0);
}

TEST_CASE("scheduler: a long job's sequences, which end one by one, are more", "[engine]") {
  const Outcome spread = run({.rows = 600, .answer = 96, .max_tokens = 96});
  CHECK(spread.most_running > 22);  // 20 at their longest; 26 at their mean
  CHECK(spread.most_running <= 28);
  CHECK(spread.preemptions == 0);
}

TEST_CASE("scheduler: answers that end tell how many have room", "[engine]") {
  // Each might take the whole cache, so that no more than the first are let in; they end after 16 tokens.
  const Outcome short_answers = run({.rows = 400, .answer = 16, .max_tokens = 2000});
  CHECK(short_answers.most_running_of_unknown == kAtFirst);
  CHECK(short_answers.most_running > 2 * kAtFirst);
}
