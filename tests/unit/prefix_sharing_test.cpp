// Prompts that begin alike, against a memory that remembers which tokens each key was computed from: whatever
// is shared, copied, evicted, preempted, brought back or computed again, a step must find the keys of its own
// sequences, and no sequence's key may be written over. With gated delta nets it remembers from which chunks
// and steps each state came too, and a step must find its own.
#include <cmath>
#include <cstring>
#include <map>
#include <random>
#include <set>

#include "engine/scheduler.h"
#include "moerun/random.h"
#include "tests/catch.h"

using namespace moerun;

namespace {

constexpr int32_t kBlock = 8, kLongest = 160, kVocab = 1000;

/// A key is told by all tokens up to its own.
uint64_t next_key(uint64_t before, int32_t token) {
  return draw_key(before, static_cast<uint64_t>(token), 0).key0 |
         uint64_t{draw_key(before, static_cast<uint64_t>(token), 0).key1} << 32;
}
/// The token that a stream draws at a position, and the log-probability of a token after others: any will do
/// that depend on what they should.
int32_t token_of(uint64_t stream, int32_t position) {
  return static_cast<int32_t>((stream % 1000003 * 31 + static_cast<uint64_t>(position) * 7) % kVocab);
}
float score_of(uint64_t key, int32_t target) { return static_cast<float>(next_key(key, target) % 10000); }
/// The model's first choice after others: in every third case the one that is asked about.
int32_t first_choice(uint64_t key, int32_t target) { return next_key(key, target) % 3 == 0 ? target : -7; }

/// The most likely tokens after others, of which that is the first.
std::vector<std::pair<int32_t, float>> best_after(uint64_t key, int32_t target, int32_t count) {
  std::vector<std::pair<int32_t, float>> best;
  for (int32_t i = 0; i < count; ++i) {
    const int32_t token = i == 0 ? first_choice(key, target) : static_cast<int32_t>((key + 7) % 1000) + i;
    best.emplace_back(token, score_of(key, token));
  }
  return best;
}

struct Held {
  uint64_t key = 0;
  int32_t token = -1;
};

/// What a sequence's logits come from: all tokens, and with delta nets (chunk > 0) also how they were
/// computed.
struct Path {
  int32_t chunk = 0;
  uint64_t keys = 0, state = 0, logits = 0;

  static uint64_t chunk_done(uint64_t state) { return next_key(state, kVocab + 1); }
  void prompt_token(int32_t position, int32_t token, bool last) {
    keys = next_key(keys, token);
    logits = keys;
    if (chunk == 0) return;
    state = next_key(state, token);
    logits ^= state;
    if (last || (position + 1) % chunk == 0) state = chunk_done(state);
  }
  void step(int32_t token) {
    keys = next_key(keys, token);
    logits = keys;
    if (chunk == 0) return;
    state = next_key(next_key(state, token), kVocab + 2);
    logits ^= state;
  }
};

struct Memory {
  Memory(const SchedulerOptions& options)
      : device(static_cast<size_t>(options.num_blocks * kBlock)),
        host(static_cast<size_t>(options.num_host_blocks * kBlock)),
        states(static_cast<size_t>(options.states.num_slots)),
        host_states(static_cast<size_t>(options.states.num_host_slots)) {}

  void move_states(const StepPlan& plan) {
    const auto at = [](auto& slots, int32_t slot) -> uint64_t& {
      return slots.at(static_cast<size_t>(slot));
    };
    for (size_t i = 0; i < plan.state_swap_out.size(); i += 2)
      at(host_states, plan.state_swap_out[i + 1]) = at(states, plan.state_swap_out[i]);
    for (size_t i = 0; i < plan.state_swap_in.size(); i += 2)
      at(states, plan.state_swap_in[i]) = at(host_states, plan.state_swap_in[i + 1]);
    std::set<int32_t> read, written;
    for (size_t i = 0; i < plan.state_copies.size(); i += 2) {
      read.insert(plan.state_copies[i]);
      CHECK(written.insert(plan.state_copies[i + 1]).second);
      at(states, plan.state_copies[i + 1]) = at(states, plan.state_copies[i]);
    }
    for (const int32_t slot : written) CHECK_FALSE(read.contains(slot));
  }
  /// The step's states, and in `key_of_token` what they add to what its logits come from.
  void compute_states(const StepPlan& plan, int32_t chunk, std::vector<uint64_t>& key_of_token) {
    std::set<int32_t> written;
    REQUIRE(plan.state_slots.size() == plan.context_lens.size());
    for (size_t s = 0; s < plan.context_lens.size(); ++s) {
      const auto slot = plan.state_slots[s];
      REQUIRE(written.insert(slot).second);
      const int32_t begin = plan.cu_seqlens_q[s], end = plan.cu_seqlens_q[s + 1];
      const int32_t start = plan.positions[static_cast<size_t>(begin)];
      Path path{.chunk = chunk, .state = start == 0 ? 0 : states.at(static_cast<size_t>(slot))};
      const bool prefills = s < static_cast<size_t>(plan.num_prefill_seqs);
      if (prefills) REQUIRE(start % chunk == 0);
      for (int32_t t = begin; t < end; ++t) {
        const auto i = static_cast<size_t>(t);
        path.keys = 0;
        if (prefills)
          path.prompt_token(plan.positions[i], plan.tokens[i], t + 1 == end);
        else
          path.step(plan.tokens[i]);
        key_of_token[i] ^= path.logits ^ path.keys;
        for (size_t save = 0; save < plan.state_saves.size(); save += 3)
          if (plan.state_saves[save] == static_cast<int32_t>(s) &&
              plan.state_saves[save + 1] == plan.positions[i] + 1) {
            CHECK(written.insert(plan.state_saves[save + 2]).second);
            states.at(static_cast<size_t>(plan.state_saves[save + 2])) = path.state;
          }
      }
      states.at(static_cast<size_t>(slot)) = path.state;
    }
  }

  void move(const StepPlan& plan) {
    const auto copy = [](auto& to, int32_t to_block, const auto& from, int32_t from_block, int32_t tokens) {
      std::copy_n(from.begin() + from_block * kBlock, tokens, to.begin() + to_block * kBlock);
    };
    for (size_t i = 0; i < plan.swap_out.size(); i += 2)
      copy(host, plan.swap_out[i + 1], device, plan.swap_out[i], kBlock);
    for (size_t i = 0; i < plan.swap_in.size(); i += 2)
      copy(device, plan.swap_in[i], host, plan.swap_in[i + 1], kBlock);
    std::set<int32_t> read, written;
    for (size_t i = 0; i < plan.copies.size(); i += 3) {
      CHECK(plan.copies[i + 2] > 0);
      CHECK(plan.copies[i + 2] < kBlock);
      read.insert(plan.copies[i]);
      CHECK(written.insert(plan.copies[i + 1]).second);
      copy(device, plan.copies[i + 1], device, plan.copies[i], plan.copies[i + 2]);
    }
    for (const int32_t block : written) CHECK_FALSE(read.contains(block));
  }

  std::vector<Held> device, host;
  std::vector<uint64_t> states, host_states;
};

struct Outcome {
  int64_t preemptions = 0, swaps = 0, shared = 0, computed = 0, distinct = 0, steps = 0;
  std::map<uint64_t, RowResult> answers;
};

struct Row {
  std::vector<int32_t> prompt;
  SamplingParams sampling;
};

/// Tokens of a trie over the prompts.
int64_t distinct_tokens(std::vector<Row> rows) {
  std::set<uint64_t> keys;
  for (const Row& row : rows) {
    uint64_t key = 0;
    for (const int32_t token : row.prompt) keys.insert(key = next_key(key, token));
  }
  return static_cast<int64_t>(keys.size());
}

Outcome work(const std::vector<Row>& rows, const SchedulerOptions& options) {
  Scheduler scheduler(options);
  Memory memory(options);
  for (size_t row = 0; row < rows.size(); ++row) {
    PromptRecord record{.row = row};
    record.sampling = rows[row].sampling;
    scheduler.add({std::move(record), rows[row].prompt, nullptr});
  }
  Outcome outcome{.distinct = distinct_tokens(rows)};
  for (; !scheduler.idle(); ++outcome.steps) {
    REQUIRE(outcome.steps < 100000);
    const StepPlan plan = scheduler.schedule();
    REQUIRE(plan.num_tokens() > 0);
    CHECK(scheduler.cache().num_used() <= options.num_blocks);
    memory.move(plan);
    memory.move_states(plan);
    std::vector<uint64_t> key_of_token(plan.tokens.size());
    const auto slot = [&](size_t s, int32_t position) {
      const int32_t block =
          plan.block_table[s * static_cast<size_t>(plan.max_blocks) + static_cast<size_t>(position / kBlock)];
      return static_cast<size_t>(block * kBlock + position % kBlock);
    };
    std::set<size_t> written;
    for (size_t s = 0; s < plan.context_lens.size(); ++s)
      for (int32_t t = plan.cu_seqlens_q[s]; t < plan.cu_seqlens_q[s + 1]; ++t) {
        const auto i = static_cast<size_t>(t);
        const int32_t position = plan.positions[i];
        const uint64_t before = position == 0 ? 0 : memory.device[slot(s, position - 1)].key;
        REQUIRE(slot(s, position) == static_cast<size_t>(plan.slot_mapping[i]));
        REQUIRE(written.insert(slot(s, position)).second);
        key_of_token[i] = next_key(before, plan.tokens[i]);
        memory.device[slot(s, position)] = {key_of_token[i], plan.tokens[i]};
      }
    // The last key tells all tokens before it, if each follows from the one before.
    for (size_t s = 0; s < plan.context_lens.size(); ++s)
      for (int32_t position = 0; position < plan.context_lens[s]; ++position) {
        const Held& held = memory.device[slot(s, position)];
        REQUIRE(held.key ==
                next_key(position == 0 ? 0 : memory.device[slot(s, position - 1)].key, held.token));
      }
    // What a token was routed to is told by its key alone.
    if (options.routed.kept()) {
      std::vector<uint8_t> routed(key_of_token.size() * sizeof(uint64_t));
      std::memcpy(routed.data(), key_of_token.data(), routed.size());
      scheduler.take_routed(plan, routed);
    }
    if (options.states.chunk > 0) memory.compute_states(plan, options.states.chunk, key_of_token);
    outcome.computed += plan.cu_seqlens_q[static_cast<size_t>(plan.num_prefill_seqs)];
    std::vector<TokenResult> results;
    for (const LogitRow& row : plan.logit_rows) {
      const uint64_t key = key_of_token[static_cast<size_t>(row.token_index)];
      TokenResult& result = results.emplace_back();
      // A drawn token carries what it was drawn from, so that an answer tells whether all of it was right.
      result.token = row.target >= 0 ? row.target : token_of(row.stream, row.position);
      result.logprob = score_of(key, result.token);
      for (const auto& [token, logprob] : best_after(key, result.token, row.draw.logprobs))
        result.top_tokens.push_back(token), result.top_logprobs.push_back(logprob);
    }
    for (RowResult& result : scheduler.postprocess(plan, results))
      outcome.answers[result.row] = std::move(result);
  }
  scheduler.schedule();  // what the last step's copies read is let go
  CHECK(scheduler.cache().num_used() == 0);
  outcome.preemptions = scheduler.num_preemptions();
  outcome.swaps = scheduler.num_swaps();
  outcome.shared = scheduler.num_shared_tokens();
  return outcome;
}

/// Ids of a token take as many bytes as its key.
const RoutedShape kRouted{.layers = {0, 2}, .experts_per_token = 2, .num_experts = 300};

void append_key(std::vector<uint8_t>& routed, uint64_t key) {
  for (size_t byte = 0; byte < sizeof key; ++byte) routed.push_back(static_cast<uint8_t>(key >> 8 * byte));
}

/// What a sequence alone in an endless memory answers.
void check_answers(const std::vector<Row>& rows, Outcome& outcome, int32_t chunk = 0) {
  REQUIRE(outcome.answers.size() == rows.size());
  for (auto& [number, result] : outcome.answers) {
    CAPTURE(number);
    const Row& row = rows[number];
    Path path{.chunk = chunk};
    const auto start = static_cast<size_t>(row.sampling.prompt_logprobs_start);
    std::vector<float> scores;
    std::vector<uint8_t> greedy;
    std::vector<std::pair<int32_t, float>> top;
    std::vector<uint8_t> routed;
    for (size_t i = 0; i < row.prompt.size(); ++i) {
      const uint64_t key = path.logits;
      if (i >= start) {
        scores.push_back(score_of(key, row.prompt[i]));
        greedy.push_back(i > 0 && first_choice(key, row.prompt[i]) == row.prompt[i]);
        for (const auto& one : best_after(key, row.prompt[i], row.sampling.prompt_logprobs))
          top.push_back(i > 0 ? one : std::pair(-1, 0.0F));
      }
      path.prompt_token(static_cast<int32_t>(i), row.prompt[i], i + 1 == row.prompt.size());
      append_key(routed, path.keys);
    }
    CHECK(result.prompt_routed == routed);
    if (row.sampling.scores_prompt()) {
      REQUIRE(result.prompt_logprobs.size() == scores.size());
      if (start == 0) {
        CHECK(std::isnan(result.prompt_logprobs[0]));
        scores[0] = result.prompt_logprobs[0] = 0;
      }
      CHECK(result.prompt_logprobs == scores);
      if (row.sampling.prompt_is_greedy) CHECK(result.prompt_is_greedy == greedy);
      CHECK(result.num_prompt_top_logprobs == row.sampling.prompt_logprobs);
      for (auto& [token, logprob] : result.prompt_top_logprobs)
        if (token == -1 && std::isnan(logprob)) logprob = 0;
      CHECK(result.prompt_top_logprobs == top);
    }
    REQUIRE(static_cast<int32_t>(result.more_answers.size()) == row.sampling.n - 1);
    const auto check_answer = [&](uint64_t index, const auto& answer) {
      CAPTURE(index);
      const uint64_t stream = stream_of_answer(stream_of_row(number), index);
      Path before = path;
      std::vector<uint8_t> routed_answer;
      REQUIRE(static_cast<int32_t>(answer.token_ids.size()) == row.sampling.max_tokens);
      for (size_t i = 0; i < answer.token_ids.size(); ++i) {
        REQUIRE(answer.token_ids[i] == token_of(stream, static_cast<int32_t>(row.prompt.size() + i)));
        REQUIRE(answer.logprobs[i] == score_of(before.logits, answer.token_ids[i]));
        before.step(answer.token_ids[i]);
        append_key(routed_answer, i + 1 < answer.token_ids.size() ? before.keys : UINT64_MAX);
      }
      CHECK(answer.routed == routed_answer);
    };
    check_answer(0, result);
    for (uint64_t index = 1; const Answer& answer : result.more_answers) check_answer(index++, answer);
  }
}

/// Prompts that branch at random places.
std::vector<Row> random_rows(std::mt19937_64& random, int count) {
  std::vector<Row> rows;
  for (int i = 0; i < count; ++i) {
    Row row;
    if (!rows.empty() && random() % 5 != 0) {
      const std::vector<int32_t>& other = rows[random() % rows.size()].prompt;
      row.prompt.assign(other.begin(), other.begin() + static_cast<ptrdiff_t>(random() % (other.size() + 1)));
    }
    for (auto more = static_cast<int>(random() % 20);
         row.prompt.empty() || (more > 0 && row.prompt.size() < 100); --more)
      row.prompt.push_back(static_cast<int32_t>(random() % 3));
    row.sampling.draw.logprobs = 0;
    row.sampling.max_tokens = static_cast<int32_t>(random() % 60);
    const bool scored = random() % 3 == 0 || row.sampling.max_tokens == 0;
    row.sampling.prompt_logprobs = scored ? static_cast<int32_t>(random() % 2 * (random() % 5)) : -1;
    if (scored && random() % 2 == 0)
      row.sampling.prompt_logprobs_start = static_cast<int32_t>(random() % row.prompt.size());
    row.sampling.prompt_is_greedy = scored && random() % 2 == 0;
    if (row.sampling.max_tokens > 0 && random() % 4 == 0)
      row.sampling.n = 1 + static_cast<int32_t>(random() % 20);
    rows.push_back(std::move(row));
  }
  return rows;
}

SchedulerOptions options_with(int64_t num_blocks, int64_t num_host_blocks) {
  return {.max_num_seqs = 12,
          .max_num_batched_tokens = 40,
          .block_size = kBlock,
          .num_blocks = num_blocks,
          .num_host_blocks = num_host_blocks,
          .limits = {.max_model_len = kLongest},
          .routed = kRouted};
}

}  // namespace

TEST_CASE("prefix sharing: every sequence finds its own keys, also when room is short", "[engine]") {
  const uint64_t seed = std::random_device()();
  CAPTURE(seed);
  std::mt19937_64 random(seed);
  int64_t preemptions = 0, swaps = 0, shared = 0;
  for (int round = 0; round < 40; ++round) {
    const std::vector<Row> rows = random_rows(random, 80);
    SchedulerOptions options = options_with(static_cast<int64_t>(20 + random() % (round % 2 == 0 ? 8 : 60)),
                                            static_cast<int64_t>(random() % 30));
    options.num_seqs_of_any_length = static_cast<int32_t>(1 + random() % 12);
    Outcome outcome = work(rows, options);
    check_answers(rows, outcome);
    preemptions += outcome.preemptions, swaps += outcome.swaps, shared += outcome.shared;
    options.share_prefixes = false;
    Outcome alone = work(rows, options);
    check_answers(rows, alone);
    CHECK(alone.shared == 0);
  }
  CHECK(preemptions > swaps);
  CHECK(swaps > 0);
  CHECK(shared > 0);
}

TEST_CASE("prefix sharing: every sequence finds its own state, also when room is short", "[engine]") {
  const uint64_t seed = std::random_device()();
  CAPTURE(seed);
  std::mt19937_64 random(seed);
  int64_t preemptions = 0, swaps = 0, shared = 0;
  for (int round = 0; round < 60; ++round) {
    const std::vector<Row> rows = random_rows(random, 60);
    SchedulerOptions options = options_with(static_cast<int64_t>(20 + random() % (round % 2 == 0 ? 8 : 60)),
                                            static_cast<int64_t>(random() % 30));
    options.num_seqs_of_any_length = static_cast<int32_t>(1 + random() % 12);
    options.states = {.chunk = static_cast<int32_t>(random() % 2 == 0 ? 16 : 12),
                      .num_slots = static_cast<int64_t>(12 + random() % 7),
                      .num_host_slots = static_cast<int64_t>(random() % 8)};
    options.max_num_batched_tokens = static_cast<int32_t>(options.states.chunk + random() % 40);
    CAPTURE(round, options.states.chunk, options.states.num_slots, options.max_num_batched_tokens);
    Outcome outcome = work(rows, options);
    check_answers(rows, outcome, options.states.chunk);
    preemptions += outcome.preemptions, swaps += outcome.swaps, shared += outcome.shared;
    options.share_prefixes = false;
    Outcome alone = work(rows, options);
    check_answers(rows, alone, options.states.chunk);
    CHECK(alone.shared == 0);
  }
  CHECK(preemptions > swaps);
  CHECK(swaps > 0);
  CHECK(shared > 0);
}

TEST_CASE("prefix sharing: states are kept where rows leave each other", "[engine]") {
  // 64 tokens in common, and 20 of each row's own: all but the first take over what lies before the border.
  std::vector<Row> rows(9);
  for (size_t r = 0; r < rows.size(); ++r) {
    rows[r].prompt.assign(67, 1);
    rows[r].prompt.insert(rows[r].prompt.end(), 17, static_cast<int32_t>(2 + r));
    rows[r].sampling = {.max_tokens = 3, .prompt_logprobs = r % 2 == 0 ? 0 : -1};
    rows[r].sampling.draw.logprobs = 0;
  }
  SchedulerOptions options = options_with(400, 0);
  options.states = {.chunk = 16, .num_slots = 12 + 24};
  Outcome outcome = work(rows, options);
  check_answers(rows, outcome, 16);
  CHECK(outcome.computed == 64 + 9 * 20);
  // Several answers begin with the state behind the whole prompt.
  for (Row& row : rows) row.sampling = {.n = 5, .max_tokens = 3};
  for (Row& row : rows) row.sampling.draw.logprobs = 0;
  outcome = work(rows, options);
  check_answers(rows, outcome, 16);
  CHECK(outcome.shared >= 9 * 4 * 67);
}

TEST_CASE("prefix sharing: with room, a prefix is computed once", "[engine]") {
  auto fresh = [next = 0](std::vector<int32_t> tokens, int more) mutable {
    for (int i = 0; i < more; ++i) tokens.push_back(next++);
    return tokens;
  };
  for (const bool scored : {false, true}) {
    CAPTURE(scored);
    std::vector<Row> rows;  // preambles, questions, endings
    for (int p = 0; p < 3; ++p)
      for (auto [q, preamble] = std::pair(0, fresh({}, 61)); q < 20; ++q)
        for (auto [e, question] = std::pair(0, fresh(preamble, 13)); e < 4; ++e) {
          Row& row = rows.emplace_back(Row{.prompt = fresh(question, 5)});
          row.sampling = {.max_tokens = 1, .prompt_logprobs = scored ? 0 : -1};
          row.sampling.draw.logprobs = 0;
        }
    SchedulerOptions options = options_with(2000, 0);
    options.max_num_batched_tokens = 256;
    Outcome outcome = work(rows, options);
    check_answers(rows, outcome);
    // Also where scores need the logits of the last token in common: its step scores what follows in each
    // row.
    CHECK(outcome.computed == outcome.distinct);
    CHECK(outcome.preemptions == 0);
    options.share_prefixes = false;
    CHECK(work(rows, options).computed == static_cast<int64_t>(rows.size()) * (61 + 13 + 5));
  }
}

TEST_CASE("several answers: the prompt is computed once, however many run at once", "[engine]") {
  for (const int32_t n : {2, 12, 64}) {  // 12 run at once
    CAPTURE(n);
    std::vector<Row> rows(3);
    for (size_t r = 0; r < rows.size(); ++r) {
      rows[r].prompt.assign(61, static_cast<int32_t>(r + 1));
      rows[r].sampling = {.n = n, .max_tokens = static_cast<int32_t>(1 + 3 * r)};
      rows[r].sampling.draw.logprobs = 0;
    }
    SchedulerOptions options = options_with(400, 0);
    Outcome outcome = work(rows, options);
    check_answers(rows, outcome);
    CHECK(outcome.computed == outcome.distinct);
    CHECK(outcome.preemptions == 0);
    options.share_prefixes = false;
    Outcome alone = work(rows, options);
    check_answers(rows, alone);
    CHECK(alone.computed == int64_t{3} * n * 61);
  }
}

TEST_CASE("scores from a position on: what lies before needs no scores of others", "[engine]") {
  std::vector<Row> rows(2);  // one draws, the other scores what comes after the same beginning
  rows[0].prompt.assign(40, 1);
  rows[0].sampling = {.max_tokens = 2};
  rows[1].prompt.assign(40, 1);
  rows[1].prompt.insert(rows[1].prompt.end(), 9, 2);
  rows[1].sampling = {.max_tokens = 0, .prompt_logprobs = 0, .prompt_logprobs_start = 40};
  for (Row& row : rows) row.sampling.draw.logprobs = 0;
  SchedulerOptions options = options_with(400, 0);
  Outcome outcome = work(rows, options);
  check_answers(rows, outcome);
  CHECK(outcome.computed == 40 + 1 + 9);  // position 39 once more, for its logits
}

TEST_CASE("what waits lets go of shared blocks that the last one running needs", "[engine]") {
  // The first needs the whole cache in the end. The others are preempted, and hold their common beginning.
  for (const int64_t host_blocks : {0, 20}) {
    CAPTURE(host_blocks);
    std::vector<Row> rows(3);
    for (size_t r = 0; r < rows.size(); ++r) {
      rows[r].prompt.assign(r == 0 ? 10 : 16, r == 0 ? 1 : 2);
      if (r > 0) rows[r].prompt.insert(rows[r].prompt.end(), {static_cast<int32_t>(10 + r), 3, 4});
      rows[r].sampling = {.max_tokens = r == 0 ? 70 : 60};
      rows[r].sampling.draw.logprobs = 0;
    }
    SchedulerOptions options = options_with(10, host_blocks);
    options.limits.max_model_len = 10 * kBlock;
    Outcome outcome = work(rows, options);
    check_answers(rows, outcome);
    CHECK(outcome.preemptions > 1);
    CHECK(outcome.steps < 1000);
  }
}
