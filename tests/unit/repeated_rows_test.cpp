// Rows with the same ids and sampling: one is computed, and its answer is the others' too.
#include "engine/repeated_rows.h"

#include "job/answer_key.h"
#include "tests/catch.h"

using namespace moerun;

namespace {

using Turn = RepeatedRows::Turn;

PromptRecord record_of(uint64_t row, const SamplingParams& sampling = {}) {
  return {.row = row,
          .id = std::to_string(row),
          .id_kind = row % 2 ? IdKind::integer : IdKind::text,
          .prompt_truncated = static_cast<int32_t>(row % 3),
          .sampling = sampling,
          .endpoint = Endpoint::completions,
          .model = "m" + std::to_string(row)};
}

Sequence sequence_of(uint64_t row, std::vector<int32_t> prompt, const SamplingParams& sampling = {}) {
  return {record_of(row, sampling), std::move(prompt), nullptr};
}

/// As one that was computed.
RowResult answer_of(const Sequence& sequence, int32_t token) {
  RowResult result = sequence.asked();
  result.token_ids = {token};
  result.finish_reason = FinishReason::stop;
  return result;
}

void check_answer(const RowResult& answer, uint64_t row, const std::vector<int32_t>& tokens) {
  const PromptRecord record = record_of(row);
  CHECK(answer.row == row);
  CHECK(answer.id == record.id);
  CHECK(answer.id_kind == record.id_kind);
  CHECK(answer.model == record.model);
  CHECK(answer.endpoint == Endpoint::completions);
  CHECK(answer.prompt_truncated == record.prompt_truncated);
  CHECK(answer.prompt_length == 3);
  CHECK(answer.token_ids == tokens);
  CHECK(answer.finish_reason == FinishReason::stop);
}

}  // namespace

TEST_CASE("what decides an answer beside its prompt", "[repeated]") {
  const SamplingParams greedy{.max_tokens = 8};
  const auto with = [](SamplingParams base, const auto& change) {
    change(base);
    return answer_key(base);
  };
  REQUIRE(answer_key(greedy));
  CHECK(with(greedy, [](auto& s) { s.draw.seed = 3, s.own_seed = true; }) == answer_key(greedy));
  CHECK(with(greedy, [](auto& s) { s.draw.top_p = 0.5F, s.draw.top_k = 3, s.draw.min_p = 0.1F; }) ==
        answer_key(greedy));
  CHECK(with(greedy, [](auto& s) { s.draw.temperature = 1e-6F; }) == answer_key(greedy));
  CHECK(with(greedy, [](auto& s) { s.draw.repetition_penalty = 2; }) != answer_key(greedy));
  CHECK(with(greedy, [](auto& s) { s.draw.logprobs = 0; }) != answer_key(greedy));
  CHECK(with(greedy, [](auto& s) { s.max_tokens = 9; }) != answer_key(greedy));
  CHECK(with(greedy, [](auto& s) { s.n = 2; }) != answer_key(greedy));
  CHECK(with(greedy, [](auto& s) { s.stop = {"x"}; }) != answer_key(greedy));
  CHECK(with(greedy, [](auto& s) { s.prompt_is_greedy = true; }) != answer_key(greedy));

  // Draws are keyed by the row's number, or by a seed of its own.
  SamplingParams drawn = greedy;
  drawn.draw.temperature = 1;
  CHECK_FALSE(answer_key(drawn));
  drawn.own_seed = true;
  REQUIRE(answer_key(drawn));
  CHECK(with(drawn, [](auto& s) { s.draw.seed = 4; }) != answer_key(drawn));
  CHECK(with(drawn, [](auto& s) { s.draw.top_p = 0.5F; }) != answer_key(drawn));
  // Who is only scored draws nothing.
  drawn.own_seed = false;
  drawn.max_tokens = 0;
  CHECK(answer_key(drawn));
}

TEST_CASE("the first row of its kind is computed, and the others get its answer", "[repeated]") {
  RepeatedRows rows;
  RowResult result;
  const Sequence first = sequence_of(5, {1, 2, 3});
  CHECK(rows.add(first, result) == Turn::computes);
  CHECK(rows.add(sequence_of(2, {1, 2, 3}), result) == Turn::waits);
  CHECK(rows.add(sequence_of(9, {1, 2, 3}, {.max_tokens = 3}), result) == Turn::computes);
  CHECK(rows.add(sequence_of(7, {1, 2, 3}), result) == Turn::waits);
  std::vector<RowResult> answers = rows.finish(answer_of(first, 8));
  REQUIRE(answers.size() == 2);
  check_answer(answers[0], 2, {8});
  check_answer(answers[1], 7, {8});
  // Who comes later is answered at once, and the other kind's answer is its own.
  CHECK(rows.add(sequence_of(11, {1, 2, 3}), result) == Turn::answered);
  check_answer(result, 11, {8});
  CHECK(rows.add(sequence_of(12, {1, 2, 3}, {.max_tokens = 3}), result) == Turn::waits);
  // Behind another prompt nobody is remembered but who is waited for.
  CHECK(rows.add(sequence_of(13, {1, 2, 4}), result) == Turn::computes);
  CHECK(rows.add(sequence_of(14, {1, 2, 3}), result) == Turn::computes);
  answers = rows.finish(answer_of(sequence_of(9, {1, 2, 3}), 6));
  REQUIRE(answers.size() == 1);
  check_answer(answers[0], 12, {6});
  CHECK(rows.finish(answer_of(first, 8)).empty());
  CHECK(rows.finish(answer_of(sequence_of(13, {1, 2, 4}), 8)).empty());
}

TEST_CASE("rows that draw by the job's seed are all computed, and what is wrong names its row",
          "[repeated]") {
  RepeatedRows rows;
  RowResult result;
  SamplingParams drawn;
  drawn.draw.temperature = 1;
  for (const uint64_t row : {0, 1}) CHECK(rows.add(sequence_of(row, {1}, drawn), result) == Turn::computes);
  const Sequence first = sequence_of(12, {1});
  CHECK(rows.add(first, result) == Turn::computes);
  CHECK(rows.add(sequence_of(1, {1}), result) == Turn::waits);
  RowResult failed = first.asked();
  failed.error = "row 12: logits are not finite at position 1";
  const std::vector<RowResult> answers = rows.finish(failed);
  REQUIRE(answers.size() == 1);
  CHECK(answers[0].error == "row 1: logits are not finite at position 1");
  CHECK(answers[0].finish_reason == FinishReason::error);
}

TEST_CASE("memory for rows that repeat is bounded", "[repeated]") {
  RepeatedRows rows;
  RowResult result;
  const Sequence first = sequence_of(0, {1});
  rows.add(first, result);
  uint64_t row = 0;
  while (!rows.full()) {
    REQUIRE(row < 1000);
    PromptRecord record = record_of(++row);
    record.id.assign(100000, 'x');
    CHECK(rows.add({std::move(record), {1}, nullptr}, result) == Turn::waits);
  }
  CHECK(row > 100);
  CHECK(rows.finish(answer_of(first, 1)).size() == row);
  CHECK_FALSE(rows.full());

  // An answer beyond the limit is not kept: the next row of its kind is computed.
  const Sequence large = sequence_of(2000, {2});
  CHECK(rows.add(large, result) == Turn::computes);
  RowResult answer = answer_of(large, 1);
  answer.text.assign(size_t{40} << 20, 'x');
  CHECK(rows.finish(answer).empty());
  CHECK(rows.add(sequence_of(2001, {2}), result) == Turn::computes);
  CHECK(rows.finish(answer_of(sequence_of(2001, {2}), 1)).empty());
  CHECK(rows.add(sequence_of(2002, {2}), result) == Turn::answered);

  // So are kinds of one prompt.
  for (uint64_t seed = 0; seed < 10000; ++seed) {
    SamplingParams drawn;
    drawn.draw = {.seed = seed, .temperature = 1};
    drawn.own_seed = true;
    const Sequence sequence = sequence_of(3000 + seed, {2}, drawn);
    REQUIRE(rows.add(sequence, result) == Turn::computes);
    CHECK(rows.num_remembered() <= RepeatedRows::kMostKinds);
  }
}
