// What running sequences will hold, against a walk through all steps; and what the scheduler makes of it
// where the number of sequences is left to it.
#include "engine/length_forecast.h"

#include <algorithm>
#include <random>

#include "engine/scheduler.h"
#include "moerun/random.h"
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

constexpr int32_t kPrompt = 64, kBlock = 16, kOfAnyLength = 16, kAnyNumber = 1000;

struct Workload {
  std::vector<int> answers;  // tokens
  int32_t max_tokens = 0;
  bool ignore_eos = false;
};

struct Outcome {
  int64_t steps = 0, tokens = 0, most_running = 0, preemptions = 0;
  int64_t most_running_of_unknown = 0;  // before the first answer had ended
};

/// In a cache of 200 blocks, 3,200 tokens.
Outcome run(const Workload& workload, int32_t max_num_seqs, int32_t of_any_length) {
  constexpr int32_t kEnd = 7;
  Scheduler scheduler({.max_num_seqs = max_num_seqs,
                       .num_seqs_of_any_length = of_any_length,
                       .max_num_batched_tokens = 4096,
                       .block_size = kBlock,
                       .num_blocks = 200,
                       .limits = {.max_model_len = 2048, .eos_token_ids = {kEnd}}});
  Outcome outcome;
  const size_t rows = workload.answers.size();
  for (size_t row = 0, answers = 0; row < rows || !scheduler.idle();) {
    for (; row < rows && scheduler.num_waiting() < kOfAnyLength; ++row) {
      PromptRecord record{.row = row};
      record.sampling.max_tokens = workload.max_tokens;
      record.sampling.ignore_eos = workload.ignore_eos;
      scheduler.add({std::move(record), std::vector<int32_t>(kPrompt, static_cast<int32_t>(row)), nullptr});
    }
    scheduler.set_rows_left(rows - row);
    const StepPlan plan = scheduler.schedule();
    REQUIRE(plan.num_tokens() > 0);
    ++outcome.steps, outcome.tokens += plan.num_tokens();
    outcome.most_running = std::max(outcome.most_running, scheduler.num_running());
    if (answers == 0) outcome.most_running_of_unknown = outcome.most_running;
    std::vector<TokenResult> results(plan.logit_rows.size());
    for (size_t i = 0; i < results.size(); ++i) {
      const LogitRow& drawn = plan.logit_rows[i];
      results[i].token =
          drawn.position + 1 >= kPrompt + workload.answers[drawn.stream - stream_of_row(0)] ? kEnd : 1;
    }
    answers += scheduler.postprocess(plan, results).size();
  }
  outcome.preemptions = scheduler.num_preemptions();
  return outcome;
}
Outcome run_forecast(const Workload& workload) { return run(workload, kAnyNumber, kOfAnyLength); }
/// So many run whatever comes.
Outcome run_fixed(const Workload& workload, int32_t num_seqs) { return run(workload, num_seqs, num_seqs); }

}  // namespace

TEST_CASE("length forecast: the peak is that of a walk through all steps", "[engine]") {
  const uint64_t seed = std::random_device{}();
  CAPTURE(seed);
  std::mt19937_64 random(seed);
  for (int round = 0; round < 300; ++round) {
    std::vector<ExpectedLength> sequences(random() % 20);
    for (ExpectedLength& s : sequences)
      s = {.tokens = static_cast<int64_t>(random() % 50), .steps_left = static_cast<int64_t>(random() % 40)};
    LengthForecast forecast;
    for (const ExpectedLength& s : sequences) forecast.add(s);
    for (int more = 0; more < 4; ++more) {
      const ExpectedLength next{.tokens = static_cast<int64_t>(random() % 50),
                                .steps_left = static_cast<int64_t>(random() % 40)};
      sequences.push_back(next);
      forecast.add(next);
      REQUIRE(forecast.peak() == static_cast<double>(walked_peak(sequences)));
      forecast.remove(next);
      sequences.pop_back();
      REQUIRE(forecast.peak() == static_cast<double>(walked_peak(sequences)));
      forecast.add(next);
      sequences.push_back(next);
    }
  }
}

TEST_CASE("length forecast: far ahead the peak is never too low, and too high by a part in 256", "[engine]") {
  std::mt19937_64 random(20261130);
  for (int round = 0; round < 40; ++round) {
    std::vector<ExpectedLength> sequences(1 + random() % 20);
    LengthForecast forecast;
    for (ExpectedLength& s : sequences) {
      s = {.tokens = static_cast<int64_t>(random() % 5000),
           .steps_left = static_cast<int64_t>(random() % 40000)};
      forecast.add(s);
    }
    const auto peak = static_cast<double>(walked_peak(sequences));
    REQUIRE(forecast.peak() >= peak);
    REQUIRE(forecast.peak() <= peak * (1 + 1.0 / 256));
  }
}

TEST_CASE("length forecast: a sequence of two lengths counts by their chances, and by how unsure that is",
          "[engine]") {
  LengthForecast forecast;
  constexpr int kSequences = 64;
  for (int i = 0; i < kSequences; ++i) {
    forecast.add({.tokens = 100, .steps_left = 10, .weight = 0.5, .variance = -0.25});
    forecast.add({.tokens = 100, .steps_left = 300, .weight = 0.5, .variance = 0.25});
  }
  // Half of them are there to the end, give or take three times the deviation of 64 tosses of a coin, 4.
  CHECK(forecast.peak() == (kSequences / 2 + 3 * 4) * 400);
}

TEST_CASE("scheduler: as many sequences as have room until they end", "[engine]") {
  // 168 tokens each at its end, with half a block: room for 19.
  const Workload together{.answers = std::vector<int>(38, 96), .max_tokens = 96};
  const Outcome forecast = run_forecast(together);
  CHECK(forecast.preemptions == 0);
  CHECK(forecast.most_running == 19);
  CHECK(forecast.steps < run_fixed(together, kOfAnyLength).steps);
  // Without the forecast all come in that have room at the time, and are sent away when they grow.
  const Outcome all = run_fixed(together, kAnyNumber);
  CHECK(all.most_running > 30);
  CHECK(all.preemptions > 0);
  CHECK(forecast.tokens < all.tokens);
}

TEST_CASE("scheduler: answers that end tell how many have room", "[engine]") {
  // Each might take most of the cache, so that no more than may be of any length are let in; they end soon.
  const Workload short_answers{.answers = std::vector<int>(400, 16), .max_tokens = 1900};
  const Outcome forecast = run_forecast(short_answers);
  CHECK(forecast.most_running_of_unknown == kOfAnyLength);
  CHECK(forecast.most_running > 2 * kOfAnyLength);
  CHECK(forecast.preemptions == 0);
  CHECK(forecast.steps < run_fixed(short_answers, kOfAnyLength).steps);
}

TEST_CASE("scheduler: what outgrows the mean keeps others out", "[engine]") {
  std::mt19937_64 random(20261125);
  Workload mixed{.answers = std::vector<int>(1000), .max_tokens = 1000};
  for (int& answer : mixed.answers) answer = random() % 10 < 3 ? 200 : 4;
  const Outcome forecast = run_forecast(mixed), fixed = run_fixed(mixed, kOfAnyLength);
  CHECK(forecast.preemptions <= fixed.preemptions * 12 / 10);
  CHECK(forecast.steps <= fixed.steps * 101 / 100);
  CHECK(forecast.preemptions < run_fixed(mixed, kAnyNumber).preemptions / 2);
}

TEST_CASE("scheduler: where max_tokens alone ends answers, no more begin than have room", "[engine]") {
  // 16 would begin whatever their lengths, and 3,200 tokens have room for 3 to the end.
  Workload known{.answers = std::vector<int>(12, 900), .max_tokens = 900, .ignore_eos = true};
  const Outcome forecast = run_forecast(known);
  CHECK(forecast.preemptions == 0);
  CHECK(forecast.most_running <= 5);
  known.ignore_eos = false;
  CHECK(run_forecast(known).preemptions > 0);
}

TEST_CASE("scheduler: answers to one prompt need room for it once", "[engine]") {
  constexpr int32_t kLong = 1024, kAnswers = 32, kTokens = 32;
  Scheduler scheduler({.max_num_seqs = kAnyNumber,
                       .num_seqs_of_any_length = 4,
                       .max_num_batched_tokens = 4096,
                       .block_size = kBlock,
                       .num_blocks = 200,
                       .limits = {.max_model_len = 2048, .eos_token_ids = {7}}});
  PromptRecord record;
  record.sampling.max_tokens = kTokens;
  record.sampling.ignore_eos = true;
  record.sampling.n = kAnswers;
  scheduler.add({std::move(record), std::vector<int32_t>(kLong, 1), nullptr});
  int64_t most = 0;
  while (!scheduler.idle()) {
    const StepPlan plan = scheduler.schedule();
    REQUIRE(plan.num_tokens() > 0);
    most = std::max(most, scheduler.num_running());
    scheduler.postprocess(plan, std::vector<TokenResult>(plan.logit_rows.size(), {.token = 1}));
  }
  CHECK(most == kAnswers);  // each with the prompt would be ten times the cache
  CHECK(scheduler.num_preemptions() == 0);
}
