#include "kernels/cpu/moe.h"

#include <algorithm>
#include <numeric>

#include "kernels/cpu/elementwise.h"
#include "kernels/cpu/gemm.h"
#include "moerun/expert_tree.h"

namespace moerun::cpu {

namespace {

/// Sums a token's local outputs along the tree over expert ids.
class TreeSum {
 public:
  TreeSum(const ExpertFfnArgs& args, const float* y) : args_(args), y_(y) {}

  /// ids[first, last) as one subtree into out [hidden]; `pairs` names each id's row of y.
  void operator()(std::span<const int32_t> ids, std::span<const int32_t> pairs, int32_t first, int32_t last,
                  float* out) const {
    if (last - first == 1) {
      std::copy_n(y_ + pairs[static_cast<size_t>(first)] * args_.hidden, args_.hidden, out);
      return;
    }
    const int32_t middle = split_of_subtree(ids, first, last);
    std::vector<float> right(static_cast<size_t>(args_.hidden));
    (*this)(ids, pairs, first, middle, out);
    (*this)(ids, pairs, middle, last, right.data());
    add(out, right.data(), args_.hidden);
  }

 private:
  const ExpertFfnArgs& args_;
  const float* y_;
};

/// Lists the (token, choice) pairs of each local expert: those of expert slot s are pairs[begin[s] … begin[s
/// + 1]).
void sort_by_expert(const ExpertFfnArgs& args, ExpertFfnScratch& scratch) {
  const auto slot = [&](int64_t pair) { return args.ids[pair] < 0 ? -1 : args.local_slot[args.ids[pair]]; };
  scratch.expert_begin.assign(static_cast<size_t>(args.num_local) + 1, 0);
  for (int64_t pair = 0; pair < args.n * args.k; ++pair)
    if (slot(pair) >= 0) {
      ++scratch.expert_begin[static_cast<size_t>(slot(pair)) + 1];
      if (args.expert_tokens) ++args.expert_tokens[args.ids[pair]];
    }
  std::partial_sum(scratch.expert_begin.begin(), scratch.expert_begin.end(), scratch.expert_begin.begin());
  scratch.pairs.resize(static_cast<size_t>(scratch.expert_begin.back()));
  std::vector<int32_t> next(scratch.expert_begin);
  for (int64_t pair = 0; pair < args.n * args.k; ++pair)
    if (slot(pair) >= 0)
      scratch.pairs[static_cast<size_t>(next[static_cast<size_t>(slot(pair))]++)] =
          static_cast<int32_t>(pair);
}

/// Products of one expert with its m rows.
class Product {
 public:
  Product(int64_t m, int64_t expert, QuantisedRows& quantised)
      : m_(m), expert_(expert), quantised_(quantised) {}

  /// out [m, n] = x·Wᵀ, W [n, in_features].
  void operator()(const float* x, const ExpertWeights& w, int64_t n, int64_t in_features, float* out) const {
    if (w.floats)
      return gemm({.x = x,
                   .ldx = in_features,
                   .m = m_,
                   .w = w.floats + expert_ * packed_floats(n, in_features),
                   .n = n,
                   .in_features = in_features,
                   .k_end = in_features,
                   .out = out,
                   .ldo = n});
    quantise_rows(x, m_, in_features, quantised_);
    gemm_fp8({.x = &quantised_,
              .m = m_,
              .w = {w.fp8.values + expert_ * fp8_values(n, in_features),
                    w.fp8.scales + expert_ * fp8_scales(n, in_features)},
              .n = n,
              .in_features = in_features,
              .k_end = in_features,
              .out = out});
  }

 private:
  int64_t m_, expert_;
  QuantisedRows& quantised_;
};

/// One expert's tokens: gather, gate and up, SwiGLU, down, weigh. Leaves y rows in the order of
/// scratch.pairs.
void run_expert(const ExpertFfnArgs& args, ExpertFfnScratch& scratch, int64_t expert) {
  const int64_t begin = scratch.expert_begin[static_cast<size_t>(expert)];
  const int64_t m = scratch.expert_begin[static_cast<size_t>(expert) + 1] - begin;
  if (m == 0) return;
  for (int64_t i = 0; i < m; ++i)
    std::copy_n(args.x + scratch.pairs[static_cast<size_t>(begin + i)] / args.k * args.hidden, args.hidden,
                scratch.x.data() + i * args.hidden);
  const Product product(m, expert, scratch.quantised);
  product(scratch.x.data(), args.gate_up, 2 * args.width, args.hidden, scratch.gate_up.data());
  silu_mul(scratch.gate_up.data(), m, args.width, scratch.h.data());
  float* const y = scratch.y.data() + begin * args.hidden;
  product(scratch.h.data(), args.down, args.hidden, args.width, y);
  for (int64_t i = 0; i < m; ++i) {
    const float weight = args.weights[scratch.pairs[static_cast<size_t>(begin + i)]];
    for (int64_t j = 0; j < args.hidden; ++j) y[i * args.hidden + j] *= weight;
  }
}

}  // namespace

void expert_ffn(const ExpertFfnArgs& args, ExpertFfnScratch& scratch) {
  sort_by_expert(args, scratch);
  int64_t most = 0;
  for (int64_t expert = 0; expert < args.num_local; ++expert)
    most = std::max<int64_t>(most, scratch.expert_begin[static_cast<size_t>(expert) + 1] -
                                       scratch.expert_begin[static_cast<size_t>(expert)]);
  const auto room = [](std::vector<float>& buffer, int64_t count) {
    if (buffer.size() < static_cast<size_t>(count)) buffer.resize(static_cast<size_t>(count));
  };
  room(scratch.x, most * args.hidden);
  room(scratch.gate_up, most * 2 * args.width);
  room(scratch.h, most * args.width);
  room(scratch.y, static_cast<int64_t>(scratch.pairs.size()) * args.hidden);
  for (int64_t expert = 0; expert < args.num_local; ++expert) run_expert(args, scratch, expert);

  if (args.pairs) {
    for (size_t i = 0; i < scratch.pairs.size(); ++i)
      std::copy_n(scratch.y.data() + static_cast<int64_t>(i) * args.hidden, args.hidden,
                  args.out + scratch.pairs[i] * args.hidden);
    return;
  }
  // row_of[pair]: where the pair's y is.
  scratch.order.assign(static_cast<size_t>(args.n * args.k), -1);
  for (size_t i = 0; i < scratch.pairs.size(); ++i)
    scratch.order[static_cast<size_t>(scratch.pairs[i])] = static_cast<int32_t>(i);
  const TreeSum tree_sum(args, scratch.y.data());
  std::vector<int32_t> choices, ids, rows, elsewhere;
  std::vector<ExpertSpan> spans;
  for (int64_t token = 0; token < args.n; ++token) {
    choices.clear();
    for (int64_t i = 0; i < args.k; ++i)
      // Without offsets a token has one sum here, over whatever of its experts is local.
      if (tree_position(args.ids[token * args.k + i]) >= 0 &&
          (args.partial_offsets || scratch.order[static_cast<size_t>(token * args.k + i)] >= 0))
        choices.push_back(static_cast<int32_t>(token * args.k + i));
    std::sort(choices.begin(), choices.end(),
              [&](int32_t a, int32_t b) { return tree_position(args.ids[a]) < tree_position(args.ids[b]); });
    ids.clear(), rows.clear(), elsewhere.clear(), spans.clear();
    for (const int32_t pair : choices) {
      ids.push_back(tree_position(args.ids[pair]));
      rows.push_back(scratch.order[static_cast<size_t>(pair)]);
      elsewhere.push_back(rows.back() < 0);
    }
    cut_into_spans(ids, elsewhere, spans);
    int64_t row = args.partial_offsets ? args.partial_offsets[token] : token;
    if (spans.empty() && !args.partial_offsets) std::fill_n(args.out + row * args.hidden, args.hidden, 0.0F);
    for (const ExpertSpan& span : spans)
      if (!elsewhere[static_cast<size_t>(span.first)])
        tree_sum(ids, rows, span.first, span.last, args.out + row++ * args.hidden);
  }
}

}  // namespace moerun::cpu
