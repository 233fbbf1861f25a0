// Sampling on the GPU against its CPU twin.
#include <algorithm>
#include <cmath>

#include "moerun/sampling.h"
#include "tests/gpu/each_dtype.h"
#include "tests/gpu/pair.h"

using namespace moerun;
using namespace moerun::test;

TEST_CASE("gpu: sample draws and scores as the CPU does", "[gpu]") {
  for_each_dtype([](DType dtype, std::mt19937_64& random) {
    Pair pair(dtype);
    constexpr int64_t kVocab = 5003;
    std::vector<LogitRow> rows;
    StepPlan plan;
    plan.history_tokens = {3, 77, 4001};
    plan.history_counts = {0, 2, 1};
    plan.banned_tokens = {5, 6};
    for (int32_t i = 0; i < 64; ++i) {
      LogitRow row{.target = i % 5 == 4 ? static_cast<int32_t>(random() % kVocab) : -1,
                   .stream = random(),
                   .position = i,
                   .draw = {.seed = random(),
                            .temperature = i % 3 == 0 ? 0.0F : 0.8F,
                            .top_p = i % 4 == 1 ? 0.9F : 1.0F,
                            .top_k = i % 6 == 1 ? 20 : 0,
                            .min_p = i % 7 == 1 ? 0.05F : 0.0F,
                            .logprobs = i % 5}};
      if (i % 8 == 2) {
        row.draw.repetition_penalty = 1.3F;
        row.draw.presence_penalty = 0.5F;
        row.draw.frequency_penalty = 0.2F;
        row.history_end = 3;
      }
      if (i % 8 == 3) row.banned_end = 2;
      rows.push_back(row);
    }
    const Floats logits =
        random_values(random, static_cast<int64_t>(rows.size()) * kVocab, DType::float32, 3);
    std::vector<TokenResult> results[2];
    int which = 0;
    for (Side* side : {&pair.cpu, &pair.gpu})
      results[which++] = side->device().sample(
          side->put(logits, static_cast<int64_t>(rows.size()), kVocab, DType::float32), rows, plan);
    size_t different = 0;
    for (size_t i = 0; i < rows.size(); ++i) {
      CAPTURE(i);
      const TokenResult &cpu = results[0][i], &gpu = results[1][i];
      if (rows[i].target >= 0 || rows[i].draw.temperature == 0) CHECK(gpu.token == cpu.token);
      different += gpu.token != cpu.token;
      if (gpu.token != cpu.token) continue;
      if (rows[i].draw.logprobs >= 0) CHECK(gpu.logprob == Approx(cpu.logprob).epsilon(1e-5).margin(1e-5));
      CHECK(gpu.top_tokens == cpu.top_tokens);
    }
    CHECK(different <= 1);  // the edge of top_p or a near tie of the noise
  });
}

TEST_CASE(
    "gpu: sample draws as the CPU does from odd vocabularies, ties, edges of top_p and thousands of rows",
    "[gpu]") {
  for_each_dtype([](DType dtype, std::mt19937_64& random) {
    Pair pair(dtype);
    constexpr int64_t kRows = 128;
    const auto below = [&](int64_t n) { return static_cast<int64_t>(random() % static_cast<uint64_t>(n)); };
    const auto one_of = [&](std::initializer_list<float> values) {
      return values.begin()[below(static_cast<int64_t>(values.size()))];
    };
    size_t drawn = 0, different = 0;
    for (const int64_t vocab : {1, 2, 3, 5, 127, 1022, 4097, 4099, 8191, 8192}) {
      for (int round = 0; round < 2; ++round) {
        StepPlan plan;
        std::vector<LogitRow> rows;
        Floats logits = random_values(random, kRows * vocab, DType::float32, one_of({0.5F, 3, 9}));
        for (int64_t i = 0; i < kRows; ++i) {
          if (i % 2 == 0)  // many ties
            for (int64_t id = 0; id < vocab; ++id) {
              float& logit = logits[static_cast<size_t>(i * vocab + id)];
              logit = std::round(2 * logit) / 2;
            }
          LogitRow row{.target = -1,
                       .stream = random(),
                       .position = static_cast<int32_t>(i),
                       .draw = {.seed = random(),
                                .temperature = one_of({0, 0.05F, 0.7F, 1, 1.7F, 50}),
                                .top_p = one_of({1, 1, 0.9999F, 0.95F, 0.5F, 0.1F, 1e-6F}),
                                .top_k = static_cast<int32_t>(one_of({0, 0, 1, 40, 3000})),
                                .min_p = one_of({0, 0, 0.003F, 0.2F}),
                                .logprobs = i % 3 == 0 ? 3 : -1}};
          row.history_begin = static_cast<int32_t>(plan.history_tokens.size());
          row.banned_begin = static_cast<int32_t>(plan.banned_tokens.size());
          if (vocab > 100 && i % 4 == 1) {
            row.draw.repetition_penalty = 1.3F;
            row.draw.presence_penalty = 0.5F;
            row.draw.frequency_penalty = 0.2F;
            for (int64_t id = below(7); id < vocab; id += 1 + below(40)) {
              plan.history_tokens.push_back(static_cast<int32_t>(id));
              plan.history_counts.push_back(static_cast<int32_t>(below(3)));
            }
          }
          if (vocab > 100 && i % 4 < 2) {  // the likeliest ones, one of them twice
            for (int j = 0; j < 5; ++j) plan.banned_tokens.push_back(static_cast<int32_t>(below(vocab)));
            plan.banned_tokens.push_back(plan.banned_tokens.back());
            const auto first = logits.begin() + i * vocab;
            plan.banned_tokens.push_back(
                static_cast<int32_t>(std::max_element(first, first + vocab) - first));
          }
          row.history_end = static_cast<int32_t>(plan.history_tokens.size());
          row.banned_end = static_cast<int32_t>(plan.banned_tokens.size());
          rows.push_back(row);
        }
        std::vector<TokenResult> results[2];
        int which = 0;
        for (Side* side : {&pair.cpu, &pair.gpu}) {
          const Tensor there = side->put(logits, kRows, vocab, DType::float32);
          results[which++] = side->device().sample(there, rows, plan);
          CHECK(side->get(there) == logits);  // penalties and bans are taken back
        }
        for (size_t i = 0; i < rows.size(); ++i) {
          CAPTURE(vocab, round, i);
          const TokenResult &cpu = results[0][i], &gpu = results[1][i];
          if (rows[i].draw.temperature == 0 || rows[i].draw.top_k == 1) CHECK(gpu.token == cpu.token);
          CHECK(gpu.top_tokens == cpu.top_tokens);
          ++drawn;
          different += gpu.token != cpu.token;
        }
      }
    }
    CAPTURE(drawn);
    CHECK(different <= drawn / 1000);  // the edge of top_p or a near tie of the noise
  });
}

TEST_CASE("gpu: sample knows logits that are not finite, bans of all tokens, and edges of arithmetic",
          "[gpu]") {
  for_each_dtype([](DType dtype, std::mt19937_64& random) {
    Pair pair(dtype);
    for (const int64_t vocab : {3, 101, 4096, 5003}) {
      StepPlan plan;
      std::vector<LogitRow> rows;
      std::vector<TokenFault> expected;
      Floats logits;
      const auto add = [&](LogitRow row, const Floats& own, TokenFault fault) {
        row.draw.seed = random();
        rows.push_back(row);
        logits.insert(logits.end(), own.begin(), own.end());
        expected.push_back(fault);
      };
      plan.history_tokens = {1, 2};
      plan.history_counts = {1, 0};
      plan.banned_tokens = {1, 0, 1};
      const std::vector<LogitRow> kinds{
          {},
          {.draw = {.temperature = 1, .logprobs = 2}},
          {.draw = {.temperature = 1e-30F, .top_p = 0.5F}},
          {.draw = {.temperature = 1, .top_p = 0.9F}},
          {.draw = {.temperature = 1, .min_p = 0.1F}},
          {.draw = {.temperature = 1, .top_k = 2}},
          {.draw = {.temperature = 0.7F, .top_p = 0.9F, .top_k = 2}},
          {.draw = {.repetition_penalty = 2, .logprobs = 0}, .history_end = 2},
          {.draw = {.temperature = 1, .repetition_penalty = 2}, .history_end = 2},
          {.banned_end = 3},
          {.draw = {.temperature = 1, .logprobs = 0}, .banned_end = 3},
          {.draw = {.temperature = 1, .repetition_penalty = 2}, .history_end = 2, .banned_end = 3},
          {.draw = {.temperature = 1, .top_p = 0.9F, .top_k = 2}, .banned_end = 3},
          {.target = 1, .draw = {.logprobs = 0}}};
      for (const LogitRow& row : kinds) {
        const Floats sound = random_values(random, vocab, DType::float32, 3);
        add(row, sound, TokenFault::none);
        for (const float bad : {std::nanf(""), -std::nanf(""), INFINITY, -INFINITY})
          for (const int64_t id : {int64_t{0}, int64_t{1}, vocab - 1}) {  // banned, both, neither
            Floats own = sound;
            own[static_cast<size_t>(id)] = bad;
            add(row, own, TokenFault::not_finite);
          }
      }
      const auto first = static_cast<int32_t>(plan.banned_tokens.size());
      for (int32_t id = 0; id < vocab; ++id) plan.banned_tokens.push_back(id);
      const auto end = static_cast<int32_t>(plan.banned_tokens.size());
      const Floats sound = random_values(random, vocab, DType::float32, 3);
      for (LogitRow row : {LogitRow{}, LogitRow{.draw = {.temperature = 1}},
                           LogitRow{.draw = {.temperature = 1, .top_p = 0.5F}},
                           LogitRow{.draw = {.temperature = 1, .top_k = 2, .logprobs = 1}}}) {
        row.banned_begin = first, row.banned_end = end;
        add(row, sound, TokenFault::all_banned);
        --row.banned_end;  // but one
        add(row, sound, TokenFault::none);
      }
      // Past float32's range once divided or penalised.
      Floats wide = sound;
      wide[0] = -3e38F, wide[1] = wide[2] = 3e38F;
      for (const LogitRow& row :
           {LogitRow{.draw = {.temperature = 1e-5F}}, LogitRow{.draw = {.temperature = 1e-5F, .top_p = 0.9F}},
            LogitRow{.draw = {.temperature = 1e-5F, .min_p = 0.5F}},
            LogitRow{.draw = {.temperature = 1e-5F, .top_k = 2}},
            LogitRow{.draw = {.temperature = 100, .top_p = 1e-45F}},
            LogitRow{.draw = {.repetition_penalty = 1e-45F}, .history_end = 2},
            LogitRow{.draw = {.repetition_penalty = 3e38F, .logprobs = 2}, .history_end = 2},
            LogitRow{.target = 0, .draw = {.logprobs = 0}}})
        add(row, wide, TokenFault::none);

      std::vector<TokenResult> results[2];
      int which = 0;
      const auto count = static_cast<int64_t>(rows.size());
      for (Side* side : {&pair.cpu, &pair.gpu})
        results[which++] = side->device().sample(side->put(logits, count, vocab, DType::float32), rows, plan);
      size_t different = 0;
      for (size_t i = 0; i < rows.size(); ++i) {
        CAPTURE(vocab, i);
        const TokenResult &cpu = results[0][i], &gpu = results[1][i];
        REQUIRE(cpu.fault == expected[i]);
        REQUIRE(gpu.fault == expected[i]);
        if (expected[i] != TokenFault::none) continue;
        different += gpu.token != cpu.token;
        CHECK(std::isfinite(gpu.logprob));
      }
      CHECK(different <= 1);  // the edge of top_p or a near tie of the noise
    }
  });
}
