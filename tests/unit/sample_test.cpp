// Sampling on the CPU device against a plain reference in float64.
#include "kernels/cpu/sample.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <numeric>
#include <random>
#include <set>

#include "tests/catch.h"

using namespace moerun;

namespace {

uint64_t fresh_seed() {
  static const uint64_t seed = std::random_device()();
  return seed;
}

std::vector<float> random_logits(size_t vocab, std::mt19937_64& random) {
  std::normal_distribution<float> normal(0, 2);
  std::vector<float> logits(vocab);
  for (float& logit : logits) logit = normal(random);
  return logits;
}

/// Probabilities that the options leave, in float64: temperature, then top_k, then top_p, then min_p.
std::vector<double> allowed_probabilities(const std::vector<double>& logits, const LogitRow& row) {
  std::vector<size_t> order(logits.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return logits[a] > logits[b]; });
  std::vector<double> p(logits.size());
  for (size_t i = 0; i < p.size(); ++i)
    p[i] = std::exp((logits[i] - logits[order[0]]) / static_cast<double>(row.draw.temperature));
  if (row.draw.top_k > 0 && static_cast<size_t>(row.draw.top_k) < order.size())
    order.resize(static_cast<size_t>(row.draw.top_k));
  double total = 0;
  for (const size_t id : order) total += p[id];
  std::vector<double> kept(p.size());
  double before = 0;
  for (const size_t id : order) {
    if (before < static_cast<double>(row.draw.top_p) * total && p[id] >= static_cast<double>(row.draw.min_p))
      kept[id] = p[id];
    before += p[id];
  }
  const double sum = std::accumulate(kept.begin(), kept.end(), 0.0);
  for (double& value : kept) value /= sum;
  return kept;
}

/// Draws at many positions; checks that each id comes as often as its probability says, and never when
/// that is 0.
void check_draws(const std::vector<float>& logits, LogitRow row, const StepPlan& plan,
                 const std::vector<double>& expected) {
  constexpr int kDraws = 20000;
  std::vector<int> drawn(logits.size());
  const auto vocab = static_cast<int64_t>(logits.size());
  for (row.position = 0; row.position < kDraws; ++row.position)
    ++drawn[static_cast<size_t>(cpu::sample(logits.data(), vocab, row, plan).token)];
  for (size_t id = 0; id < drawn.size(); ++id) {
    INFO("seed " << fresh_seed() << ", token " << id << " of probability " << expected[id]);
    const double mean = kDraws * expected[id], deviation = std::sqrt(mean * (1 - expected[id]));
    if (expected[id] == 0)
      CHECK(drawn[id] == 0);
    else  // where few are expected their number is no normal one: a few more are let pass
      CHECK(std::abs(drawn[id] - mean) <= 5.5 * deviation + 4);
  }
}

}  // namespace

TEST_CASE("draws have the probabilities that temperature, top_k, top_p and min_p leave") {
  std::mt19937_64 random(fresh_seed());
  const std::vector<LogitRow> options{
      {.draw = {.temperature = 1}},
      {.draw = {.temperature = 0.5F}},
      {.draw = {.temperature = 2.5F}},
      {.draw = {.temperature = 1, .top_k = 5}},
      {.draw = {.temperature = 1, .top_p = 0.7F}},
      {.draw = {.temperature = 1, .min_p = 0.2F}},
      {.draw = {.temperature = 1.5F, .top_p = 0.8F, .top_k = 7, .min_p = 0.1F}}};
  for (LogitRow row : options) {
    row.draw.seed = random();
    row.stream = random();
    const std::vector<float> logits = random_logits(13, random);
    check_draws(logits, row, {}, allowed_probabilities({logits.begin(), logits.end()}, row));
  }
}

TEST_CASE("greedy takes the greatest logit, of equal ones the lowest id") {
  std::mt19937_64 random(fresh_seed());
  std::vector<float> logits = random_logits(1001, random);
  const auto vocab = static_cast<int64_t>(logits.size());
  logits[700] = logits[300] = logits[900] = 50;
  CHECK(cpu::sample(logits.data(), vocab, {}, {}).token == 300);
  for (const LogitRow& row :
       {LogitRow{.draw = {.temperature = 1, .top_k = 1}},
        LogitRow{.draw = {.temperature = 1, .top_p = 1e-6F}}, LogitRow{.draw = {.temperature = 0.01F}}})
    CHECK((cpu::sample(logits.data(), vocab, row, {}).token - 300) % 200 == 0);
  logits[300] = 51;
  for (const LogitRow& row : {LogitRow{}, LogitRow{.draw = {.temperature = 1, .top_k = 1}},
                              LogitRow{.draw = {.temperature = 1, .top_p = 1e-6F}},
                              LogitRow{.draw = {.temperature = 3, .min_p = 1}}})
    CHECK(cpu::sample(logits.data(), vocab, row, {}).token == 300);
}

TEST_CASE("a draw depends on seed, stream and position, and on each") {
  std::mt19937_64 random(fresh_seed());
  const std::vector<float> logits(50000, 0.0F);  // uniform: two draws are seldom alike
  const auto token = [&](uint64_t seed, uint64_t stream, int32_t position) {
    return cpu::sample(logits.data(), static_cast<int64_t>(logits.size()),
                       {.stream = stream, .position = position, .draw = {.seed = seed, .temperature = 1}}, {})
        .token;
  };
  const uint64_t seed = random();
  CHECK(token(seed, 3, 4) == token(seed, 3, 4));
  std::set<int32_t> drawn;
  for (int i = 0; i < 10; ++i) {
    drawn.insert(token(seed + static_cast<uint64_t>(i), 3, 4));
    drawn.insert(token(seed, 100 + static_cast<uint64_t>(i), 4));
    drawn.insert(token(seed, 3, 100 + i));
  }
  CHECK(drawn.size() >= 27);
}

TEST_CASE("penalties change the logits of tokens that were seen, and bans take tokens away") {
  std::mt19937_64 random(fresh_seed());
  std::vector<float> logits = random_logits(11, random);
  for (float& logit : logits) logit /= 4;   // each token comes often enough for a penalty to show
  logits[1] = -std::abs(logits[1]) - 0.5F;  // a penalty multiplies or divides by the logit's sign
  logits[4] = std::abs(logits[4]) + 0.5F;
  StepPlan plan;
  plan.history_tokens = {9, 1, 4, 6};  // of an earlier row: 9
  plan.history_counts = {5, 0, 1, 3};
  plan.banned_tokens = {2, 0, 10};  // of an earlier row: 2
  LogitRow row{.draw = {.seed = random(), .temperature = 1.25F}};
  row.draw.repetition_penalty = 1.5F;
  row.draw.presence_penalty = 0.5F;
  row.draw.frequency_penalty = -0.25F;
  row.history_begin = 1, row.history_end = 4;
  row.banned_begin = 1, row.banned_end = 3;
  std::vector<double> penalised(logits.begin(), logits.end());
  for (const auto& [id, count] : std::map<size_t, int>{{1, 0}, {4, 1}, {6, 3}}) {
    penalised[id] = penalised[id] > 0 ? penalised[id] / 1.5 : penalised[id] * 1.5;
    penalised[id] -= -0.25 * count + (count > 0 ? 0.5 : 0.0);
  }
  penalised[0] = penalised[10] = -INFINITY;
  check_draws(logits, row, plan, allowed_probabilities(penalised, row));
}

TEST_CASE("biases are added before penalties, and what the mask leaves out is never drawn") {
  std::mt19937_64 random(fresh_seed());
  std::vector<float> logits = random_logits(37, random);
  for (float& logit : logits) logit /= 4;
  logits[4] = -1;  // a bias makes it positive, and so the penalty divides
  StepPlan plan;
  plan.biases = {{9, 100}, {4, 2.5F}, {33, -0.75F}, {36, 100}};  // of an earlier row: 9
  plan.history_tokens = {4};
  plan.history_counts = {1};
  plan.num_masks = 2, plan.mask_words = 2;
  plan.masks = {0, 0, 0b1011'0001'0111, 0b01010};  // of an earlier row: none can be chosen
  LogitRow row{.draw = {.seed = random(), .temperature = 1.25F}, .mask = 1};
  row.draw.repetition_penalty = 1.5F;
  row.bias_begin = 1, row.bias_end = 4;
  row.history_end = 1;
  std::vector<double> changed(logits.begin(), logits.end());
  changed[4] = (-1 + 2.5) / 1.5;
  changed[33] -= 0.75;
  for (size_t id = 0; id < changed.size(); ++id)
    if (!std::set<size_t>{0, 1, 2, 4, 8, 9, 11, 33, 35}.contains(id)) changed[id] = -INFINITY;
  check_draws(logits, row, plan, allowed_probabilities(changed, row));
  row.draw.top_k = 40;  // more than can be chosen
  row.draw.top_p = 0.8F;
  check_draws(logits, row, plan, allowed_probabilities(changed, row));

  row.draw = {.logprobs = 1};  // greedy, no penalty; log-probabilities stay the model's own
  changed[4] = 1.5;
  const TokenResult masked = cpu::sample(logits.data(), 37, row, plan);
  CHECK(changed[static_cast<size_t>(masked.token)] == *std::max_element(changed.begin(), changed.end()));
  CHECK(masked.top_tokens[0] == std::max_element(logits.begin(), logits.end()) - logits.begin());
  row.mask = 0;
  CHECK(cpu::sample(logits.data(), 37, row, plan).fault == TokenFault::all_banned);
  row.draw.temperature = 1;
  CHECK(cpu::sample(logits.data(), 37, row, plan).fault == TokenFault::all_banned);
}

TEST_CASE("log-probabilities are those of the model's own logits, the most likely first") {
  std::mt19937_64 random(fresh_seed());
  std::vector<float> logits = random_logits(4099, random);
  logits[17] = logits[4000] = 30;
  double sum = 0;
  for (const float logit : logits) sum += std::exp(static_cast<double>(logit) - 30);
  const double normaliser = 30 + std::log(sum);

  LogitRow row{
      .draw = {
          .seed = random(), .temperature = 5, .top_p = 0.9F, .repetition_penalty = 1.3F, .logprobs = 20}};
  const TokenResult drawn = cpu::sample(logits.data(), 4099, row, {});
  CHECK(std::abs(drawn.logprob -
                 (static_cast<double>(logits[static_cast<size_t>(drawn.token)]) - normaliser)) < 1e-5);
  REQUIRE(drawn.top_tokens.size() == 20);
  CHECK(drawn.top_tokens[0] == 17);
  CHECK(drawn.top_tokens[1] == 4000);
  std::vector<float> sorted = logits;
  std::sort(sorted.rbegin(), sorted.rend());
  for (size_t i = 0; i < 20; ++i) {
    CHECK(logits[static_cast<size_t>(drawn.top_tokens[i])] == sorted[i]);
    CHECK(std::abs(drawn.top_logprobs[i] - (static_cast<double>(sorted[i]) - normaliser)) < 1e-5);
  }

  row = {.target = 1234, .draw = {.logprobs = 0}};
  const TokenResult scored = cpu::sample(logits.data(), 4099, row, {});
  CHECK(scored.token == 1234);
  CHECK(std::abs(scored.logprob - (static_cast<double>(logits[1234]) - normaliser)) < 1e-5);
  CHECK(scored.top_tokens.empty());
}

TEST_CASE("temperatures below the greedy one, and values past float32's range, draw what they mean") {
  std::mt19937_64 random(fresh_seed());
  std::vector<float> logits = random_logits(1001, random);
  const auto vocab = static_cast<int64_t>(logits.size());
  const auto token = [&](LogitRow row, const StepPlan& plan = {}) {
    row.draw.seed = random();
    const TokenResult result = cpu::sample(logits.data(), vocab, row, plan);
    CHECK(result.fault == TokenFault::none);
    return result.token;
  };
  logits[300] = 50;
  for (const float temperature : {1e-45F, 1e-38F, 1e-30F, 1e-10F, 9.9e-6F, 1e-5F, 1e-3F})
    for (const LogitRow& row : {LogitRow{}, LogitRow{.draw = {.top_p = 0.5F}},
                                LogitRow{.draw = {.min_p = 0.1F}}, LogitRow{.draw = {.top_k = 7}}}) {
      LogitRow cold = row;
      cold.draw.temperature = temperature;
      CHECK(token(cold) == 300);
    }
  for (const float top_p : {1e-45F, 1e-30F})
    CHECK(token({.draw = {.temperature = 100, .top_p = top_p}}) == 300);

  // Divided by the temperature both are past the range: the lower id, not a NaN.
  logits[300] = logits[700] = 3e38F;
  logits[10] = -3e38F;
  CHECK(token({.draw = {.temperature = 1e-5F}}) == 300);
  CHECK(token({.draw = {.temperature = 1e-5F, .top_p = 0.9F}}) == 300);
  const float scored = cpu::sample(logits.data(), vocab, {.target = 10, .draw = {.logprobs = 0}}, {}).logprob;
  CHECK(std::isfinite(scored));

  // A penalty past the range sends a token behind all others, and bans none.
  StepPlan plan{.history_tokens = {300, 700}, .history_counts = {1, 1}};
  LogitRow row{.draw = {.repetition_penalty = std::numeric_limits<float>::denorm_min()}, .history_end = 2};
  CHECK(token(row, plan) == 300);
  std::fill(logits.begin(), logits.end(), -5.0F);
  plan.history_tokens.resize(logits.size());
  std::iota(plan.history_tokens.begin(), plan.history_tokens.end(), 0);
  plan.history_counts.assign(logits.size(), 1);
  row.history_end = static_cast<int32_t>(vocab);
  row.draw.repetition_penalty = std::numeric_limits<float>::max();
  CHECK(token(row, plan) == 0);
  row.draw.temperature = 1e-5F;
  row.draw.top_p = 0.5F;
  CHECK(token(row, plan) == 0);
}

TEST_CASE("logits that are not finite, and bans of all tokens, are faults") {
  std::mt19937_64 random(fresh_seed());
  const StepPlan plan{.history_tokens = {5}, .history_counts = {1}, .banned_tokens = {5, 7, 5}};
  const std::vector<LogitRow> rows{{},
                                   {.draw = {.temperature = 1}},
                                   {.draw = {.temperature = 1, .top_p = 0.9F}},
                                   {.draw = {.temperature = 1, .top_k = 3, .min_p = 0.1F}},
                                   {.draw = {.repetition_penalty = 2}, .history_end = 1},
                                   {.draw = {.temperature = 1}, .banned_end = 3},
                                   {.target = 3, .draw = {.logprobs = 0}}};
  for (const float bad : {std::nanf(""), -std::nanf(""), INFINITY, -INFINITY})
    for (const size_t id : {0, 5, 100}) {
      std::vector<float> logits = random_logits(101, random);
      for (const LogitRow& row : rows)
        CHECK(cpu::sample(logits.data(), 101, row, plan).fault == TokenFault::none);
      logits[id] = bad;
      for (const LogitRow& row : rows)
        CHECK(cpu::sample(logits.data(), 101, row, plan).fault == TokenFault::not_finite);
    }

  const std::vector<float> logits = random_logits(3, random);
  const StepPlan all{.banned_tokens = {0, 1, 2}};
  for (const float temperature : {0.0F, 1.0F}) {
    const LogitRow row{.draw = {.temperature = temperature}, .banned_end = 3};
    CHECK(cpu::sample(logits.data(), 3, row, all).fault == TokenFault::all_banned);
    LogitRow but_one = row;
    but_one.banned_end = 2;
    CHECK(cpu::sample(logits.data(), 3, but_one, all).token == 2);
  }
}
