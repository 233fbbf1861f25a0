#include "kernels/cpu/router.h"

#include <algorithm>
#include <limits>
#include <numeric>
#include <vector>

#include "kernels/cpu/simd.h"

namespace moerun::cpu {

namespace {

MOERUN_CLONES void softmax_scores(const RouterArgs& args, int64_t token, float* scores) {
  for (int64_t e = 0; e < args.experts; ++e)
    scores[e] = dot16(args.x + token * args.hidden, args.gate + e * args.hidden, args.hidden);
  const float largest = *std::max_element(scores, scores + args.experts);
  float sum = 0;
  for (int64_t e = 0; e < args.experts; ++e) {
    scores[e] = exp_f32(scores[e] - largest);
    sum += scores[e];
  }
  for (int64_t e = 0; e < args.experts; ++e) scores[e] /= sum;
}

MOERUN_CLONES void sigmoid_scores(const RouterArgs& args, int64_t token, float* scores) {
  for (int64_t e = 0; e < args.experts; ++e)
    scores[e] =
        1.0F /
        (1.0F + exp_f32(-dot16(args.x + token * args.hidden, args.gate + e * args.hidden, args.hidden)));
}

/// The first `k` of `order` become the indices of the largest of `values`, best first.
void largest(const std::vector<float>& values, int64_t k, std::vector<int32_t>& order) {
  order.resize(values.size());
  std::iota(order.begin(), order.end(), 0);
  std::partial_sort(order.begin(), order.begin() + k, order.end(), [&](int32_t a, int32_t b) {
    const float p = values[static_cast<size_t>(a)], q = values[static_cast<size_t>(b)];
    return p != q ? p > q : a < b;
  });
}

/// Leaves out the experts of groups that are not taken.
void take_groups(const RouterRule& rule, std::vector<float>& choice, std::vector<int32_t>& order) {
  const size_t size = choice.size() / static_cast<size_t>(rule.num_groups);
  std::vector<float> sums;
  for (size_t first = 0; first < choice.size(); first += size) {
    float best = -std::numeric_limits<float>::infinity(), second = best;
    for (size_t e = first; e < first + size; ++e) {
      second = std::max(second, std::min(best, choice[e]));
      best = std::max(best, choice[e]);
    }
    sums.push_back(best + second);
  }
  largest(sums, rule.groups_taken, order);
  std::sort(order.begin() + rule.groups_taken, order.end());
  for (auto group = order.begin() + rule.groups_taken; group != order.end(); ++group)
    std::fill_n(choice.begin() + static_cast<int64_t>(size) * *group, size,
                -std::numeric_limits<float>::infinity());
}

}  // namespace

void router(const RouterArgs& args) {
  const RouterRule& rule = args.rule;
  std::vector<float> scores(static_cast<size_t>(args.experts)), choice;
  std::vector<int32_t> order;
  for (int64_t token = 0; token < args.n; ++token) {
    if (rule.score == RouterRule::Score::sigmoid)
      sigmoid_scores(args, token, scores.data());
    else
      softmax_scores(args, token, scores.data());
    choice = scores;
    if (args.bias)
      for (size_t e = 0; e < choice.size(); ++e) choice[e] += args.bias[e];
    if (rule.num_groups > 1) take_groups(rule, choice, order);
    largest(choice, args.k, order);
    float sum = 0;
    for (int64_t i = 0; i < args.k; ++i) sum += scores[static_cast<size_t>(order[static_cast<size_t>(i)])];
    const float divisor = rule.normalise ? std::max(sum + rule.added_to_sum, rule.least_sum) : 1.0F;
    for (int64_t i = 0; i < args.k; ++i) {
      const int32_t id = order[static_cast<size_t>(i)];
      args.ids[token * args.k + i] = id;
      args.weights[token * args.k + i] = scores[static_cast<size_t>(id)] / divisor * rule.scale;
    }
  }
}

}  // namespace moerun::cpu
