// Biases and masks on the GPU against their CPU twin.
#include <algorithm>

#include "moerun/sampling.h"
#include "tests/gpu/each_dtype.h"
#include "tests/gpu/pair.h"

using namespace moerun;
using namespace moerun::test;

namespace {

/// Rows of which some have masks and biases, with what the plan holds for them.
struct Masked {
  StepPlan plan;
  std::vector<LogitRow> rows;
  Floats logits;
  int64_t vocab = 0;

  /// A mask of the ids that `may` tells.
  template <class May>
  int32_t add_mask(May may) {
    plan.mask_words = static_cast<int32_t>((vocab + 31) / 32);
    std::vector<uint32_t> bits(static_cast<size_t>(plan.mask_words));
    for (int64_t id = 0; id < vocab; ++id)
      if (may(id)) bits[static_cast<size_t>(id / 32)] |= 1U << id % 32;
    plan.masks.insert(plan.masks.end(), bits.begin(), bits.end());
    return plan.num_masks++;
  }
};

/// Options in turn; each fourth row has no mask, each third biases.
Masked make_rows(int64_t vocab, int32_t num_rows, std::mt19937_64& random) {
  Masked made{.logits = random_values(random, num_rows * vocab, DType::float32, 3), .vocab = vocab};
  const auto below = [&](int64_t most) {
    return static_cast<int64_t>(random() % static_cast<uint64_t>(most));
  };
  for (int32_t i = 0; i < num_rows; ++i) {
    LogitRow row{.stream = random(),
                 .position = i,
                 .draw = {.seed = random(),
                          .temperature = i % 3 == 0 ? 0.0F : 0.9F,
                          .top_p = i % 5 == 1 ? 0.8F : 1.0F,
                          .top_k = i % 7 == 2 ? 30 : 0,
                          .min_p = i % 11 == 4 ? 0.05F : 0.0F,
                          .logprobs = i % 2 == 0 ? 3 : -1}};
    if (i % 6 == 5) {
      row.draw.repetition_penalty = 1.3F;
      row.history_begin = static_cast<int32_t>(made.plan.history_tokens.size());
      for (int64_t id = below(9); id < vocab; id += 1 + below(vocab / 4)) {
        made.plan.history_tokens.push_back(static_cast<int32_t>(id));
        made.plan.history_counts.push_back(1);
      }
      row.history_end = static_cast<int32_t>(made.plan.history_tokens.size());
    }
    if (i % 3 == 1) {
      row.bias_begin = static_cast<int32_t>(made.plan.biases.size());
      for (int64_t id = below(5); id < vocab; id += 1 + below(vocab / 3))
        made.plan.biases.push_back({static_cast<int32_t>(id), static_cast<float>(below(13) - 6)});
      row.bias_end = static_cast<int32_t>(made.plan.biases.size());
    }
    const int64_t one = below(vocab), sparse = 1 + below(vocab);
    if (i % 4 == 1) row.mask = made.add_mask([&](int64_t id) { return id == one; });
    if (i % 4 == 2) row.mask = made.add_mask([&](int64_t id) { return id * 7919 % sparse < 3 || id == one; });
    if (i % 4 == 3)
      row.mask = i % 8 == 3 ? made.add_mask([](int64_t id) { return id % 3 != 1; }) : made.rows.back().mask;
    made.rows.push_back(row);
  }
  return made;
}

}  // namespace

TEST_CASE("gpu: biases are added, and what a mask leaves out is never drawn", "[gpu][masks]") {
  for_each_dtype([](DType dtype, std::mt19937_64& random) {
    Pair pair(dtype);
    size_t drawn = 0, different = 0;
    for (const int64_t vocab : {33, 1000, 4096, 5003, 8192}) {
      const Masked made = make_rows(vocab, 48, random);
      const auto num_rows = static_cast<int64_t>(made.rows.size());
      std::vector<TokenResult> results[2];
      int which = 0;
      for (Side* side : {&pair.cpu, &pair.gpu}) {
        const Tensor there = side->put(made.logits, num_rows, vocab, DType::float32);
        results[which++] = side->device().sample(there, made.rows, made.plan);
        CHECK(side->get(there) == made.logits);  // biases and penalties are taken back
      }
      for (size_t i = 0; i < made.rows.size(); ++i) {
        CAPTURE(vocab, i);
        const LogitRow& row = made.rows[i];
        const TokenResult &cpu = results[0][i], &gpu = results[1][i];
        REQUIRE(gpu.fault == TokenFault::none);
        if (const uint32_t* const mask = made.plan.mask_of(row))
          CHECK((mask[gpu.token / 32] >> gpu.token % 32 & 1) != 0);
        if (row.draw.temperature == 0) CHECK(gpu.token == cpu.token);
        CHECK(gpu.top_tokens == cpu.top_tokens);  // of the model's own logits
        ++drawn;
        different += gpu.token != cpu.token;
        // Neighbours change nothing.
        const Floats own(made.logits.begin() + static_cast<ptrdiff_t>(i) * vocab,
                         made.logits.begin() + static_cast<ptrdiff_t>(i + 1) * vocab);
        if (i % 5 == 0)
          CHECK(pair.gpu.device()
                    .sample(pair.gpu.put(own, 1, vocab, DType::float32), {&row, 1}, made.plan)[0]
                    .token == gpu.token);
      }
    }
    CAPTURE(drawn);
    CHECK(different <= drawn / 50);  // the edge of top_p or a near tie of the noise
  });
}

TEST_CASE("gpu: masks that leave nothing, and logits that are not finite behind masks", "[gpu][masks]") {
  for_each_dtype([](DType dtype, std::mt19937_64& random) {
    Pair pair(dtype);
    for (const int64_t vocab : {33, 4096, 5003}) {
      Masked made{.vocab = vocab};
      const int32_t none = made.add_mask([](int64_t) { return false; });
      const int32_t last = made.add_mask([&](int64_t id) { return id == vocab - 1; });
      made.plan.banned_tokens = {static_cast<int32_t>(vocab - 1)};
      made.plan.biases = {{0, 1}, {static_cast<int32_t>(vocab - 1), -100}};
      std::vector<TokenFault> expected;
      const auto add = [&](LogitRow row, const Floats& own, TokenFault fault) {
        row.draw.seed = random();
        made.rows.push_back(row);
        made.logits.insert(made.logits.end(), own.begin(), own.end());
        expected.push_back(fault);
      };
      const Floats sound = random_values(random, vocab, DType::float32, 3);
      for (const DrawParams& draw :
           {DrawParams{}, DrawParams{.temperature = 1, .logprobs = 0},
            DrawParams{.temperature = 1, .top_p = 0.5F}, DrawParams{.temperature = 1, .top_k = 2},
            DrawParams{.temperature = 1, .min_p = 0.1F}}) {
        add({.draw = draw, .mask = none}, sound, TokenFault::all_banned);
        add({.draw = draw, .banned_end = 1, .mask = last}, sound, TokenFault::all_banned);
        add({.draw = draw, .bias_end = 2, .mask = last}, sound, TokenFault::none);
        for (const float bad : {std::nanf(""), INFINITY, -INFINITY})
          for (const int64_t id : {int64_t{0}, vocab / 2, vocab - 1}) {
            Floats own = sound;
            own[static_cast<size_t>(id)] = bad;
            for (const int32_t mask : {none, last})
              add({.draw = draw, .bias_end = 2, .mask = mask}, own, TokenFault::not_finite);
          }
      }
      for (Side* side : {&pair.cpu, &pair.gpu}) {
        const auto results = side->device().sample(
            side->put(made.logits, static_cast<int64_t>(made.rows.size()), vocab, DType::float32), made.rows,
            made.plan);
        for (size_t i = 0; i < expected.size(); ++i) {
          CAPTURE(vocab, i);
          CHECK(results[i].fault == expected[i]);
          if (expected[i] == TokenFault::none) CHECK(results[i].token == vocab - 1);
        }
      }
    }
  });
}
