// The scheduler against a memory that remembers what was written where: whatever is preempted, moved to the
// host, brought back or computed again, a step must find every key that it attends to.
#include <map>
#include <numeric>
#include <random>

#include "engine/scheduler.h"
#include "moerun/random.h"
#include "tests/catch.h"

using namespace moerun;

namespace {

/// A key is told by its sequence and its position.
using Key = std::pair<uint64_t, int32_t>;
using Block = std::vector<Key>;
constexpr Key kNothing{~uint64_t{0}, -1};

struct Memory {
  Memory(int64_t blocks, int64_t host_blocks, int32_t block_size)
      : block_size(block_size),
        device(static_cast<size_t>(blocks), Block(static_cast<size_t>(block_size), kNothing)),
        host(static_cast<size_t>(host_blocks), Block(static_cast<size_t>(block_size), kNothing)) {}

  void run(const StepPlan& plan, const std::vector<uint64_t>& row_of_seq) {
    for (size_t i = 0; i < plan.swap_out.size(); i += 2)
      host.at(static_cast<size_t>(plan.swap_out[i + 1])) = device.at(static_cast<size_t>(plan.swap_out[i]));
    for (size_t i = 0; i < plan.swap_in.size(); i += 2)
      device.at(static_cast<size_t>(plan.swap_in[i])) = host.at(static_cast<size_t>(plan.swap_in[i + 1]));
    for (size_t i = 0; i < plan.copies.size(); i += 3)
      std::copy_n(device.at(static_cast<size_t>(plan.copies[i])).begin(), plan.copies[i + 2],
                  device.at(static_cast<size_t>(plan.copies[i + 1])).begin());
    for (size_t s = 0; s < plan.context_lens.size(); ++s)
      for (int32_t t = plan.cu_seqlens_q[s]; t < plan.cu_seqlens_q[s + 1]; ++t) {
        const auto slot = static_cast<size_t>(plan.slot_mapping[static_cast<size_t>(t)]);
        device.at(slot / static_cast<size_t>(block_size)).at(slot % static_cast<size_t>(block_size)) = {
            row_of_seq[s], plan.positions[static_cast<size_t>(t)]};
      }
  }
  /// Whether sequence s of the plan finds its first `context_len` keys where its block table says.
  bool finds(const StepPlan& plan, size_t s, uint64_t row) const {
    for (int32_t position = 0; position < plan.context_lens[s]; ++position) {
      const auto block = static_cast<size_t>(plan.block_table[s * static_cast<size_t>(plan.max_blocks) +
                                                              static_cast<size_t>(position / block_size)]);
      if (device[block][static_cast<size_t>(position % block_size)] != Key{row, position}) return false;
    }
    return true;
  }

  int32_t block_size;
  std::vector<Block> device, host;
};

/// The first token of a prompt names its row; rows are below 1,000.
Sequence sequence(uint64_t row, int32_t prompt, int32_t answer) {
  PromptRecord record{.row = row};
  record.sampling.max_tokens = answer;
  std::vector<int32_t> ids(static_cast<size_t>(prompt), static_cast<int32_t>(row));
  return {std::move(record), std::move(ids), nullptr};
}

struct Outcome {
  int64_t preemptions = 0, swaps = 0, answers = 0;
};

Outcome work(std::mt19937_64& random, int64_t num_blocks, int64_t num_host_blocks, int rows) {
  constexpr int32_t kBlock = 8, kLongest = 120;
  const AnswerLimits limits{.max_model_len = kLongest};
  Scheduler scheduler({.max_num_seqs = 12,
                       // More than have room: a forecast from the first row on would preempt none.
                       .num_seqs_of_any_length = static_cast<int32_t>(8 + random() % 5),
                       .max_num_batched_tokens = 40,
                       .block_size = kBlock,
                       .num_blocks = num_blocks,
                       .num_host_blocks = num_host_blocks,
                       .limits = limits});
  Memory memory(num_blocks, num_host_blocks, kBlock);
  std::map<uint64_t, int32_t> wanted;
  for (int row = 0; row < rows; ++row) {
    const auto prompt = static_cast<int32_t>(1 + random() % 60),
               answer = static_cast<int32_t>(1 + random() % 60);
    wanted[static_cast<uint64_t>(row)] = answer;
    scheduler.add(sequence(static_cast<uint64_t>(row), prompt, answer));
  }
  Outcome outcome;
  for (int step = 0; !scheduler.idle(); ++step) {
    REQUIRE(step < 100000);
    const StepPlan plan = scheduler.schedule();
    REQUIRE(plan.num_tokens() > 0);
    // Every token of a sequence is its row's number, drawn ones too.
    std::vector<uint64_t> row_of_seq;
    for (size_t s = 0; s < plan.context_lens.size(); ++s)
      row_of_seq.push_back(static_cast<uint64_t>(plan.tokens[static_cast<size_t>(plan.cu_seqlens_q[s])]));
    memory.run(plan, row_of_seq);
    for (size_t s = 0; s < row_of_seq.size(); ++s) REQUIRE(memory.finds(plan, s, row_of_seq[s]));
    std::vector<TokenResult> results;
    for (const LogitRow& row : plan.logit_rows)
      results.push_back({.token = static_cast<int32_t>(row.stream - stream_of_row(0))});
    for (const RowResult& result : scheduler.postprocess(plan, results)) {
      CHECK(static_cast<int32_t>(result.token_ids.size()) == wanted.at(result.row));
      ++outcome.answers;
    }
  }
  CHECK(scheduler.cache().num_used() == 0);
  outcome.preemptions = scheduler.num_preemptions();
  outcome.swaps = scheduler.num_swaps();
  return outcome;
}

}  // namespace

TEST_CASE("scheduler: preempted sequences find every key again", "[engine]") {
  const uint64_t seed = std::random_device()();
  CAPTURE(seed);
  std::mt19937_64 random(seed);
  constexpr int kRows = 80;
  const Outcome roomy = work(random, 400, 10, kRows), kept = work(random, 24, 200, kRows),
                none = work(random, 24, 0, kRows);
  Outcome some;  // went to the host, and some had to be computed again
  for (const int host_blocks : {1, 2, 8, 12}) {
    const Outcome outcome = work(random, 24, host_blocks, kRows);
    CHECK(outcome.answers == kRows);
    some.swaps += outcome.swaps;
    some.preemptions += outcome.preemptions;
  }
  for (const Outcome& outcome : {roomy, kept, none}) CHECK(outcome.answers == kRows);
  CHECK(roomy.preemptions == 0);
  CHECK(kept.preemptions > 0);
  CHECK(kept.swaps == kept.preemptions);
  CHECK(some.swaps > 0);
  CHECK(some.swaps < some.preemptions);
  CHECK(none.preemptions > 0);
  CHECK(none.swaps == 0);
}

TEST_CASE("scheduler: answers that begin and end at once leave those that wait alone", "[engine]") {
  Scheduler scheduler({.max_num_seqs = 64,
                       .num_seqs_of_any_length = 64,
                       .max_num_batched_tokens = 8,
                       .block_size = 8,
                       .num_blocks = 1000,
                       .limits = {.max_model_len = 100}});
  for (uint64_t row = 0; row < 20; ++row) {
    PromptRecord record{.row = row};
    record.sampling.n = row < 2 ? 3 : 1;
    record.sampling.max_tokens = row == 1 ? 1 : 5;  // row 1's answers end as they begin, in row 0's step
    scheduler.add({std::move(record), std::vector<int32_t>(4, 7), nullptr});
  }
  uint64_t answers = 0;
  size_t drawn = 0;
  while (!scheduler.idle()) {
    const StepPlan plan = scheduler.schedule();
    drawn += plan.logit_rows.size();
    std::vector<TokenResult> results;  // a token says where it stands
    for (const LogitRow& row : plan.logit_rows) results.push_back({.token = row.position});
    for (const RowResult& result : scheduler.postprocess(plan, results)) {
      std::vector<int32_t> expected(result.row == 1 ? 1 : 5);
      std::iota(expected.begin(), expected.end(), 4);
      CHECK(result.token_ids == expected);
      for (const Answer& answer : result.more_answers) CHECK(answer.token_ids == expected);
      answers += 1 + result.more_answers.size();
    }
  }
  CHECK(answers == 24);
  CHECK(drawn == 3 * 5 + 3 + 18 * 5);  // each token once
  CHECK(scheduler.cache().num_used() == 0);
}
