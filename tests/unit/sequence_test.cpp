// What ends an answer.
#include "engine/sequence.h"

#include "engine/scheduler.h"
#include "tests/catch.h"
#include "tests/unit/text_fixture.h"

using namespace moerun;

namespace {

const AnswerLimits kLimits{.max_model_len = 100, .eos_token_ids = {4093}};

/// Feeds an answer's tokens until the sequence says that it has ended.
RowResult answer_of(const SamplingParams& sampling, const std::vector<int32_t>& tokens,
                    const Tokenizer* tokenizer, const AnswerLimits& limits = kLimits) {
  Sequence sequence({.sampling = sampling}, {1, 2, 3}, tokenizer);
  for (const int32_t token : tokens)
    if (sequence.append({.token = token}, limits)) return sequence.finish(sequence.finish_reason()).value();
  FAIL("the answer never ended");
  return {};
}

}  // namespace

TEST_CASE("stop strings end an answer before them, also across tokens and in the middle of one") {
  Tokenizer tokenizer = Tokenizer::load(kTinyModel);
  const std::string text = "The whale swam, and the sailor sang to the morning sea.";
  const std::vector<int32_t> tokens = tokenizer.encode(text);
  REQUIRE(tokens.size() > 8);
  for (const std::string& stop : {std::string(", and the sail"), std::string("hale"), std::string("a"),
                                  std::string(" sang to the morn"), std::string("sea.")}) {
    INFO(stop);
    const RowResult result = answer_of({.max_tokens = 90, .stop = {"never", stop}}, tokens, &tokenizer);
    CHECK(result.text == text.substr(0, text.find(stop)));
    CHECK(result.finish_reason == FinishReason::stop);
    // The tokens are those up to the one that completed the stop string.
    const std::vector<int32_t> before(result.token_ids.begin(), result.token_ids.end() - 1);
    CHECK(tokenizer.decode(before, true).find(stop) == std::string::npos);
    CHECK(tokenizer.decode(result.token_ids, true).find(stop) != std::string::npos);
  }
  // Of several, the one that is there first.
  CHECK(answer_of({.max_tokens = 90, .stop = {"sailor", "whale"}}, tokens, &tokenizer).text == "The ");
}

TEST_CASE("end-of-sequence, stop token ids and lengths end an answer, each with its reason") {
  Tokenizer tokenizer = Tokenizer::load(kTinyModel);
  const std::vector<int32_t> tokens{300, 301, 4093, 302, 303, 304};
  RowResult result = answer_of({.max_tokens = 50}, tokens, &tokenizer);
  CHECK(result.token_ids == std::vector<int32_t>{300, 301, 4093});
  CHECK(result.finish_reason == FinishReason::stop);
  CHECK(result.text == tokenizer.decode(std::vector<int32_t>{300, 301}, true));

  result = answer_of({.max_tokens = 5, .ignore_eos = true}, tokens, nullptr);
  CHECK(result.token_ids == std::vector<int32_t>{300, 301, 4093, 302, 303});
  CHECK(result.finish_reason == FinishReason::length);
  CHECK(result.text.empty());

  result = answer_of({.max_tokens = 50, .stop_token_ids = {7, 303}, .ignore_eos = true}, tokens, nullptr);
  CHECK(result.token_ids.back() == 303);
  CHECK(result.finish_reason == FinishReason::stop);

  result = answer_of({.max_tokens = 50}, tokens, nullptr, {.max_model_len = 5, .eos_token_ids = {4093}});
  CHECK(result.token_ids == std::vector<int32_t>{300, 301});  // 3 + 2 tokens
  CHECK(result.finish_reason == FinishReason::length);
}

TEST_CASE(
    "before min_tokens, end-of-sequence and stop token ids cannot be chosen and stop strings do not stop") {
  Tokenizer tokenizer = Tokenizer::load(kTinyModel);
  Scheduler scheduler({.max_num_seqs = 2,
                       .max_num_batched_tokens = 64,
                       .block_size = 16,
                       .num_blocks = 8,
                       .limits = kLimits});
  const SamplingParams sampling{.max_tokens = 9, .min_tokens = 2, .stop = {"e"}, .stop_token_ids = {8}};
  scheduler.add(Sequence({.sampling = sampling}, {1, 2, 3}, &tokenizer));
  const std::vector<int32_t> answer = tokenizer.encode("e the e e");
  REQUIRE(answer.size() >= 4);
  for (size_t made = 0;; ++made) {
    const StepPlan plan = scheduler.schedule();
    REQUIRE(plan.logit_rows.size() == 1);
    CHECK(plan.banned_tokens == (made < 2 ? std::vector<int32_t>{4093, 8} : std::vector<int32_t>{}));
    CHECK(plan.logit_rows[0].banned_end - plan.logit_rows[0].banned_begin == (made < 2 ? 2 : 0));
    const auto finished = scheduler.postprocess(plan, {{.token = answer[made]}});
    if (finished.empty()) continue;
    CHECK(finished[0].token_ids.size() >= 2);
    CHECK(finished[0].finish_reason == FinishReason::stop);
    break;
  }
}

TEST_CASE("penalties look at prompt and answer") {
  Scheduler scheduler({.max_num_seqs = 2,
                       .max_num_batched_tokens = 64,
                       .block_size = 16,
                       .num_blocks = 8,
                       .limits = kLimits});
  scheduler.add(
      Sequence({.sampling = {.draw = {.frequency_penalty = 1}, .max_tokens = 9}}, {5, 6, 5}, nullptr));
  for (const int32_t token : {6, 7, 7}) scheduler.postprocess(scheduler.schedule(), {{.token = token}});
  const StepPlan plan = scheduler.schedule();
  CHECK(plan.history_tokens == std::vector<int32_t>{5, 6, 7});
  CHECK(plan.history_counts == std::vector<int32_t>{0, 1, 2});
  CHECK(plan.logit_rows[0].history_begin == 0);
  CHECK(plan.logit_rows[0].history_end == 3);
}
