#pragma once
// Plain references of the MoE operations on the host, written to be read.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <functional>
#include <numeric>
#include <optional>
#include <vector>

namespace moerun::bench {

/// A value that host and device compute alike from where it stands: uniform in [−scale, scale), scale a power
/// of two.
struct HashedValues {
  uint64_t seed = 0;
  float scale = 1;

#ifdef __CUDACC__
  __host__ __device__
#endif
      float
      operator()(uint64_t index) const {
    uint64_t z = (index + seed) * 0x9e3779b97f4a7c15ull;  // splitmix64
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    const auto bits = static_cast<int32_t>((z ^ (z >> 31)) >> 40);  // 24 bits
    return static_cast<float>(bits - (1 << 23)) * (scale / static_cast<float>(1 << 23));
  }
};

struct Routing {
  std::vector<int32_t> ids;     // [n, k]
  std::vector<double> weights;  // [n, k]
  std::vector<double> gaps;     // [n] smallest difference in logits that decided a choice or its place
};

inline Routing route(const std::vector<float>& x, const std::vector<float>& gate, int n, int hidden,
                     int num_experts, int k, bool renormalise) {
  Routing out;
  for (int t = 0; t < n; ++t) {
    std::vector<double> logits(num_experts);
    for (int e = 0; e < num_experts; ++e) {
      for (int i = 0; i < hidden; ++i) {
        logits[e] += static_cast<double>(x[size_t(t) * hidden + i]) * gate[size_t(e) * hidden + i];
      }
    }
    std::vector<int32_t> order(num_experts);
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return logits[a] > logits[b]; });
    const double highest = logits[order[0]];
    double sum = 0, chosen = 0, gap = INFINITY;
    for (double v : logits) sum += std::exp(v - highest);
    for (int i = 0; i < k; ++i) {
      chosen += std::exp(logits[order[i]] - highest) / sum;
      if (i + 1 < num_experts) gap = std::min(gap, logits[order[i]] - logits[order[i + 1]]);
    }
    for (int i = 0; i < k; ++i) {
      out.ids.push_back(order[i]);
      out.weights.push_back(std::exp(logits[order[i]] - highest) / sum / (renormalise ? chosen : 1.0));
    }
    out.gaps.push_back(gap);
  }
  return out;
}

/// The sum of one column of a token along the tree over expert ids [lo, lo + size), by its definition
/// (moerun/expert_tree.h). `value(id)` is the rounded leaf of an expert that is local here; `foreign` ones
/// are elsewhere. Subtrees that touch a foreign expert pass the sums of their local parts to `emit`; with no
/// foreign experts the total is returned.
struct TreeSum {
  std::function<std::optional<float>(int32_t)> value;
  std::function<bool(int32_t)> foreign;
  std::function<float(float)> round;
  std::function<void(float)> emit;

  struct Node {
    bool has_foreign = false;
    std::optional<float> sum;
  };
  Node operator()(int32_t lo, int32_t size) const {
    if (size == 1) return {foreign(lo), value(lo)};
    const Node left = (*this)(lo, size / 2), right = half(left, lo, size);
    if (left.has_foreign || right.has_foreign) {
      if (!right.has_foreign && right.sum) emit(*right.sum);
      return {true, std::nullopt};
    }
    if (left.sum && right.sum) return {false, round(*left.sum + *right.sum)};
    return {false, left.sum ? left.sum : right.sum};
  }

 private:
  /// The right half; a left half that stays apart from it is emitted first, to keep ascending order.
  Node half(const Node& left, int32_t lo, int32_t size) const {
    if (left.sum && !left.has_foreign && any_foreign(lo + size / 2, size / 2)) emit(*left.sum);
    return (*this)(lo + size / 2, size / 2);
  }
  bool any_foreign(int32_t lo, int32_t size) const {
    for (int32_t id = lo; id < lo + size; ++id) {
      if (foreign(id)) return true;
    }
    return false;
  }
};

}  // namespace moerun::bench
