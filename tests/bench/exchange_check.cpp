#include "tests/bench/exchange_check.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <numeric>
#include <utility>

#include "moerun/error.h"
#include "moerun/expert_tree.h"
#include "moerun/half.h"

namespace moerun {

ExchangeTokens make_exchange_tokens(std::mt19937_64& random, int64_t n, int64_t hidden, int64_t num_experts,
                                    int64_t k, DType dtype) {
  ExchangeTokens tokens{.n = n, .k = k, .hidden = hidden};
  tokens.x.resize(static_cast<size_t>(n * hidden) * size_of(dtype));
  std::uniform_real_distribution<float> value(-1, 1), weight(0.05F, 1);
  for (int64_t i = 0; i < n * hidden; ++i) store_float(tokens.x.data(), dtype, i, value(random));
  std::vector<int32_t> experts(static_cast<size_t>(num_experts));
  std::iota(experts.begin(), experts.end(), 0);
  for (int64_t token = 0; token < n; ++token)
    for (int64_t i = 0; i < k; ++i) {
      const auto other = std::uniform_int_distribution<int64_t>(i, num_experts - 1)(random);
      std::swap(experts[static_cast<size_t>(i)], experts[static_cast<size_t>(other)]);
      tokens.ids.push_back(experts[static_cast<size_t>(i)]);
      tokens.weights.push_back(weight(random));
    }
  return tokens;
}

std::vector<int32_t> ExchangeCheck::tokens_to_rank(const ExchangeTokens& tokens) const {
  std::vector<int32_t> count(static_cast<size_t>(experts_.ep_size()), 0);
  std::vector<char> there(count.size());
  for (int64_t token = 0; token < tokens.n; ++token) {
    std::fill(there.begin(), there.end(), '\0');
    for (int64_t i = token * tokens.k; i < (token + 1) * tokens.k; ++i)
      there[static_cast<size_t>(experts_.rank_of(tokens.ids[static_cast<size_t>(i)]))] = 1;
    for (size_t r = 0; r < count.size(); ++r) count[r] += there[r];
  }
  return count;
}

void ExchangeCheck::poison(Tensor tensor) const {
  const std::vector<char> nan(tensor.bytes(), '\xFF');
  device_.copy_to_device(tensor.data, nan.data(), nan.size());
}

ExchangeCheck::Token ExchangeCheck::sorted(const char* x, const int32_t* ids, const float* weights,
                                           int64_t k) const {
  Token token{.x = x};
  for (int32_t place = 0; place < k; ++place)
    if (ids[place] >= 0) token.places.push_back(place);  // −1: lives elsewhere
  std::sort(token.places.begin(), token.places.end(), [&](int32_t a, int32_t b) { return ids[a] < ids[b]; });
  for (const int32_t place : token.places) {
    token.ids.push_back(ids[place]);
    token.ranks.push_back(experts_.rank_of(ids[place]));
    token.weights.push_back(weights[place]);
  }
  return token;
}

float ExchangeCheck::rounded(float value) const {
  store_float(&value, dtype_, 0, value);
  return load_float(&value, dtype_, 0);
}

std::vector<float> ExchangeCheck::tree(const Token& token, int32_t first, int32_t last,
                                       int64_t hidden) const {
  std::vector<float> sum(static_cast<size_t>(hidden));
  if (last - first == 1) {
    const auto at = static_cast<size_t>(first);
    const float factor = 1 + static_cast<float>(token.ids[at]) / 16;
    for (int64_t i = 0; i < hidden; ++i)
      sum[static_cast<size_t>(i)] = rounded(token.weights[at] * (load_float(token.x, dtype_, i) * factor));
    return sum;
  }
  const int32_t middle = split_of_subtree(token.ids, first, last);
  sum = tree(token, first, middle, hidden);
  const std::vector<float> right = tree(token, middle, last, hidden);
  for (size_t i = 0; i < sum.size(); ++i) sum[i] = rounded(sum[i] + right[i]);
  return sum;
}

void ExchangeCheck::store(const std::vector<float>& row, char* out) const {
  for (size_t i = 0; i < row.size(); ++i) store_float(out, dtype_, static_cast<int64_t>(i), row[i]);
}

int64_t ExchangeCheck::compute(const Dispatched& here) const {
  const Routed& arrived = here.tokens;
  const int64_t n = arrived.x.rows, hidden = arrived.x.cols, k = arrived.topk_weights.cols;
  std::vector<char> x(arrived.x.bytes());
  std::vector<int32_t> ids(static_cast<size_t>(n * k));
  std::vector<float> weights(ids.size());
  device_.copy_to_host(x.data(), arrived.x.data, x.size());
  device_.copy_to_host(ids.data(), arrived.topk_ids.data, ids.size() * 4);
  device_.copy_to_host(weights.data(), arrived.topk_weights.data, weights.size() * 4);

  const Tensor& partials = here.partials;
  const bool pairs = here.pairs, one_a_token = here.partial_offsets.size == 0;
  const size_t row_bytes = partials.row_bytes();
  std::vector<char> sums(partials.bytes(), '\xFF');
  int64_t next = 0, with_experts = 0;
  std::vector<ExpertSpan> spans;
  for (int64_t row = 0; row < n; ++row) {
    const Token token = sorted(x.data() + static_cast<size_t>(row) * arrived.x.row_bytes(),
                               ids.data() + row * k, weights.data() + row * k, k);
    spans.clear();
    cut_into_spans(token.ids, token.ranks, spans);
    if (one_a_token) next = row;
    with_experts += std::count(token.ranks.begin(), token.ranks.end(), rank_) > 0 ? 1 : 0;
    for (size_t i = 0; pairs && i < token.ids.size(); ++i)
      if (token.ranks[i] == rank_)
        store(tree(token, static_cast<int32_t>(i), static_cast<int32_t>(i) + 1, hidden),
              sums.data() + static_cast<size_t>(row * k + token.places[i]) * row_bytes);
    if (pairs) continue;
    for (const ExpertSpan& span : spans) {
      if (token.ranks[static_cast<size_t>(span.first)] != rank_) continue;
      if (next >= partials.rows) throw Error("the exchange has no row for a partial sum");
      store(tree(token, span.first, span.last, hidden),
            sums.data() + static_cast<size_t>(next++) * row_bytes);
    }
  }
  device_.copy_to_device(partials.data, sums.data(), sums.size());
  return with_experts;
}

std::string ExchangeCheck::compare(const ExchangeTokens& tokens, Tensor out) const {
  std::vector<char> got(out.bytes()), want(out.row_bytes());
  device_.copy_to_host(got.data(), out.data, got.size());
  const size_t row_bytes = out.row_bytes();
  for (int64_t row = 0; row < tokens.n; ++row) {
    const Token token =
        sorted(tokens.x.data() + static_cast<size_t>(row) * row_bytes, tokens.ids.data() + row * tokens.k,
               tokens.weights.data() + row * tokens.k, tokens.k);
    store(tree(token, 0, static_cast<int32_t>(token.ids.size()), tokens.hidden), want.data());
    const char* const mine = got.data() + static_cast<size_t>(row) * row_bytes;
    if (std::memcmp(mine, want.data(), row_bytes) == 0) continue;
    for (int64_t i = 0; i < tokens.hidden; ++i)
      if (const float a = load_float(mine, dtype_, i), b = load_float(want.data(), dtype_, i); !(a == b))
        return fmt::format("rank {}, token {}, element {}: {} and not {}", rank_, row, i, a, b);
  }
  return {};
}

}  // namespace moerun
