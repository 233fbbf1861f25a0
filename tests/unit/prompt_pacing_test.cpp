#include <algorithm>
#include <numeric>

#include "engine/scheduler.h"
#include "tests/catch.h"

using namespace moerun;

namespace {

constexpr int32_t kPrompt = 512, kAnswer = 64, kAtOnce = 32, kStepTokens = 8192;

Sequence sequence(uint64_t row) {
  PromptRecord record{.row = row};
  record.sampling.max_tokens = kAnswer;
  return {std::move(record), std::vector<int32_t>(kPrompt, static_cast<int32_t>(row)), nullptr};
}

struct Run {
  std::vector<int32_t> prompt_tokens;  // a step
  std::vector<size_t> answers;         // a step
};

/// `rows` prompts of one length with answers of one length; a few are ahead, as the engine keeps them.
Run run(int rows, int64_t num_blocks = 4096) {
  Scheduler scheduler({.max_num_seqs = kAtOnce,
                       .max_num_batched_tokens = kStepTokens,
                       .num_blocks = num_blocks,
                       .num_host_blocks = 4096,
                       .limits = {.max_model_len = kPrompt + kAnswer}});
  Run out;
  for (int row = 0; row < rows || !scheduler.idle();) {
    for (; row < rows && scheduler.num_running() + scheduler.num_waiting() < kAtOnce + kAtOnce / 4; ++row)
      scheduler.add(sequence(static_cast<uint64_t>(row)));
    scheduler.set_rows_left(static_cast<uint64_t>(rows - row));
    const StepPlan plan = scheduler.schedule();
    REQUIRE(plan.num_tokens() > 0);
    out.prompt_tokens.push_back(plan.cu_seqlens_q[static_cast<size_t>(plan.num_prefill_seqs)]);
    out.answers.push_back(
        scheduler.postprocess(plan, std::vector<TokenResult>(plan.logit_rows.size())).size());
  }
  return out;
}

}  // namespace

TEST_CASE("prompt pacing: a long job's sequences end one by one", "[engine]") {
  const Run paced = run(40 * kAtOnce);
  // In a full machine a sequence ends every other step.
  const auto first = paced.answers.begin() + 2 * kAnswer, last = first + 8 * kAnswer;
  CHECK(*std::max_element(first, last) <= 3);
  const auto ended = std::accumulate(first, last, size_t{0});
  CHECK(ended > 0.95 * 8 * kAtOnce);
  CHECK(ended < 1.05 * 8 * kAtOnce);
  // Its steps take at most a margin more than the mean.
  const auto rate = kAtOnce * kPrompt / kAnswer;
  CHECK(*std::max_element(paced.prompt_tokens.begin(), paced.prompt_tokens.begin() + 10 * kAnswer) <=
        1.2 * rate);
}

TEST_CASE("prompt pacing: a short job takes prompts as they come", "[engine]") {
  const Run direct = run(2 * kAtOnce);
  CHECK(direct.prompt_tokens.front() == kStepTokens);
  CHECK(direct.prompt_tokens[1] >= kStepTokens - kAtOnce);  // beside those that decode
}

TEST_CASE("prompt pacing: the cache bounds what runs at once, ended answers tell their length", "[engine]") {
  PromptPacing pacing(
      {.max_num_seqs = 1000, .max_num_batched_tokens = 100000, .block_size = 1, .num_blocks = 100 * 1508});
  CHECK(pacing.prompt_tokens(0, 1 << 20) == 100000);  // nothing is known yet
  for (int i = 0; i < 50; ++i) pacing.add(1000, 1000, false);
  const double rate = 100;  // sequences at once, each taking 1,000 tokens in 1,000 steps
  CHECK(pacing.prompt_tokens(0, 400) >= rate);
  CHECK(pacing.prompt_tokens(0, 400) <= 256);  // what costs nothing is taken
  CHECK(pacing.prompt_tokens(0, 399) == 100000);
  for (int i = 0; i < 50; ++i) pacing.finish(10);  // an answer ends after 10 tokens: 148 sequences at once
  CHECK(pacing.prompt_tokens(0, 1 << 20) >= 148 * 1000 / 10);
  CHECK(pacing.prompt_tokens(0, 1 << 20) <= 1.2 * 150 * 1000 / 10);
}

TEST_CASE("prompt pacing: rows that say how long they are begin as seldom as that takes", "[engine]") {
  // 100 at once of 64 + 1,024 tokens in the mean, 2,048 steps each: one begins in 20 steps.
  PromptPacing pacing(
      {.max_num_seqs = 1000, .max_num_batched_tokens = 8192, .block_size = 1, .num_blocks = 100 * 1097});
  for (int i = 0; i < 400; ++i) pacing.add(64, 2048, true);
  int64_t tokens = 0, without = 0;
  for (int step = 0; step < 4096; ++step) {
    const int32_t taken = pacing.prompt_tokens(300, 0);
    tokens += taken, without += taken == 0;
  }
  CHECK(tokens > 1.0 * 200 * 64);
  CHECK(tokens < 1.1 * 200 * 64);
  CHECK(without > 3900);  // and not a token each
}

TEST_CASE("prompt pacing: places do not stand empty while tokens are saved", "[engine]") {
  // Four run at once. With room for all of them to their ends a place is taken as soon as it is free; with
  // room for four that began one after the other, about as often as answers end.
  for (const bool short_of_room : {false, true}) {
    PromptPacing pacing({.max_num_seqs = 4,
                         .max_num_batched_tokens = 8192,
                         .block_size = 1,
                         .num_blocks = short_of_room ? 4 * (8 + 36 + 9) : 10000});
    for (int i = 0; i < 400; ++i) pacing.add(8, 72, true);
    int longest = 0, without = 0;
    for (int step = 0; step < 1000; ++step) {
      without = pacing.prompt_tokens(300, 0) > 0 ? 0 : without + 1;
      longest = std::max(longest, without);
    }
    CHECK((longest == 0) == !short_of_room);
    CHECK(longest <= 72 / 4);
  }
}

TEST_CASE("prompt pacing: few rows of known length begin together unless that takes more turns", "[engine]") {
  const PromptPacing::Room room{
      .max_num_seqs = 1000, .max_num_batched_tokens = 8192, .block_size = 1, .num_blocks = 100 * 1097};
  // Room for 51 together and for 100 one after the other. 50 rows have room at once; 200: four turns or
  // three.
  for (const int rows : {50, 200}) {
    PromptPacing pacing(room);
    for (int i = 0; i < rows; ++i) pacing.add(64, 2048, true);
    CHECK((pacing.prompt_tokens(static_cast<uint64_t>(rows), 0) == 8192) == (rows == 50));
  }
}
