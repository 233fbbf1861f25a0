#include "kernels/cpu/sample.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

#include "moerun/random.h"
#include "moerun/sampling.h"

namespace moerun::cpu {

namespace {

/// Ids in the order of descending logit, ties to the lower id; the first `count` of them are sorted.
std::vector<int32_t> best(const std::vector<float>& logits, int64_t count) {
  std::vector<int32_t> order(logits.size());
  std::iota(order.begin(), order.end(), 0);
  count = std::min<int64_t>(count, static_cast<int64_t>(order.size()));
  const auto is_better = [&](int32_t a, int32_t b) {
    const float x = logits[static_cast<size_t>(a)], y = logits[static_cast<size_t>(b)];
    return x != y ? x > y : a < b;
  };
  // Of all of a large vocabulary a sort takes a third of the time that a heap does.
  if (count == static_cast<int64_t>(order.size()))
    std::sort(order.begin(), order.end(), is_better);
  else
    std::partial_sort(order.begin(), order.begin() + count, order.end(), is_better);
  order.resize(static_cast<size_t>(count));
  return order;
}

double log_sum_exp(const float* logits, int64_t vocab) {
  const double largest = *std::max_element(logits, logits + vocab);
  double sum = 0;
  for (int64_t i = 0; i < vocab; ++i) sum += std::exp(static_cast<double>(logits[i]) - largest);
  return largest + std::log(sum);
}

/// What penalties and temperatures carry past float32's range stays at its end: only bans are −∞.
float bounded(float logit) {
  constexpr float kMost = std::numeric_limits<float>::max();
  return std::clamp(logit, -kMost, kMost);
}

/// Biases, then penalties, then what cannot be chosen. Repetition as in Keskar et al., CTRL (2019); presence
/// and frequency as in OpenAI's API.
void change(std::vector<float>& logits, const LogitRow& row, const StepPlan& plan) {
  for (int32_t i = row.bias_begin; i < row.bias_end; ++i) {
    const TokenBias& one = plan.biases[static_cast<size_t>(i)];
    float& logit = logits[static_cast<size_t>(one.token)];
    logit = bounded(logit + one.bias);
  }
  for (int32_t i = row.history_begin; i < row.history_end; ++i) {
    float& logit = logits[static_cast<size_t>(plan.history_tokens[static_cast<size_t>(i)])];
    const auto count = static_cast<float>(plan.history_counts[static_cast<size_t>(i)]);
    logit = logit > 0 ? logit / row.draw.repetition_penalty : logit * row.draw.repetition_penalty;
    logit -= row.draw.frequency_penalty * count;
    if (count > 0) logit -= row.draw.presence_penalty;
    logit = bounded(logit);
  }
  for (int32_t i = row.banned_begin; i < row.banned_end; ++i)
    logits[static_cast<size_t>(plan.banned_tokens[static_cast<size_t>(i)])] = -INFINITY;
  if (const uint32_t* const mask = plan.mask_of(row))
    for (size_t id = 0; id < logits.size(); ++id)
      if ((mask[id / 32] >> id % 32 & 1) == 0) logits[id] = -INFINITY;
}

/// Leaves only what top_k, top_p and min_p allow; the rest becomes −∞.
void restrict_to_allowed(std::vector<float>& logits, const LogitRow& row) {
  const auto vocab = static_cast<int64_t>(logits.size());
  if (row.draw.top_k <= 0 && row.draw.top_p >= 1 && row.draw.min_p <= 0) return;
  std::vector<int32_t> order = best(logits, row.draw.top_k > 0 ? row.draw.top_k : vocab);
  const double largest = logits[static_cast<size_t>(order[0])];
  double total = 0;
  for (const int32_t id : order) total += std::exp(logits[static_cast<size_t>(id)] - largest);
  size_t kept = 0;
  double above = 0;
  while (kept < order.size()) {
    const double p = std::exp(logits[static_cast<size_t>(order[kept])] - largest);
    // The smallest set whose probability reaches top_p; the best one always stays. min_p is relative to the
    // best.
    if (kept > 0 && (above >= row.draw.top_p * total || p < row.draw.min_p)) break;
    above += p;
    ++kept;
  }
  std::vector<float> allowed(logits.size(), -INFINITY);
  for (size_t i = 0; i < kept; ++i)
    allowed[static_cast<size_t>(order[i])] = logits[static_cast<size_t>(order[i])];
  logits = std::move(allowed);
}

int32_t draw(const std::vector<float>& logits, const LogitRow& row) {
  const DrawKey key = draw_key(row.draw.seed, row.stream, row.position);
  int32_t chosen = -1;
  float largest = -INFINITY;
  Philox4x32 words{};
  for (size_t id = 0; id < logits.size(); ++id) {
    if (id % 4 == 0 || chosen < 0) words = draw_words(key, static_cast<uint32_t>(id / 4));
    if (logits[id] == -INFINITY) continue;
    const float value = logits[id] + gumbel(words.word[id % 4]);
    if (chosen < 0 || value > largest) {
      chosen = static_cast<int32_t>(id);
      largest = value;
    }
  }
  return chosen;
}

}  // namespace

TokenResult sample(const float* logits, int64_t vocab, const LogitRow& row, const StepPlan& plan) {
  if (!std::all_of(logits, logits + vocab, [](float logit) { return std::isfinite(logit); }))
    return {.fault = TokenFault::not_finite};
  TokenResult result;
  result.token = row.target;
  if (row.target < 0) {
    std::vector<float> own(logits, logits + vocab);
    change(own, row, plan);
    const auto best = std::max_element(own.begin(), own.end());
    if (*best == -INFINITY) return {.fault = TokenFault::all_banned};
    result.token = static_cast<int32_t>(best - own.begin());
    if (row.draw.temperature >= kGreedyTemperature) {
      for (float& logit : own)
        if (logit != -INFINITY) logit = bounded(logit / row.draw.temperature);
      restrict_to_allowed(own, row);
      result.token = draw(own, row);
    }
  }
  if (row.draw.logprobs < 0) return result;
  const double normaliser = log_sum_exp(logits, vocab);
  const auto logprob = [&](int32_t id) {
    constexpr double kLeast = std::numeric_limits<float>::lowest();
    return static_cast<float>(std::max(logits[id] - normaliser, kLeast));
  };
  result.logprob = logprob(result.token);
  if (row.draw.logprobs > 0) {
    result.top_tokens = best(std::vector<float>(logits, logits + vocab), row.draw.logprobs);
    for (const int32_t id : result.top_tokens) result.top_logprobs.push_back(logprob(id));
  }
  return result;
}

}  // namespace moerun::cpu
