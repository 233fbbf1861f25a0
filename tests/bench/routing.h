#pragma once
// Made-up routings of a step, as published measurements of MoE layers have them.
#include <algorithm>
#include <cstdint>
#include <numeric>
#include <random>
#include <vector>

namespace moerun {

enum class Routing {
  balanced,   ///< each expert has as many tokens as any other, where k divides num_experts and these n · k
  power_law,  ///< expert i of a random order is drawn with a weight of 1 / (i + 1), without repetition
};

/// [num_tokens, k] distinct expert ids of each token.
inline std::vector<int32_t> make_routing(Routing routing, int64_t num_tokens, int64_t k, int64_t num_experts,
                                         std::mt19937_64& random) {
  std::vector<int32_t> order(static_cast<size_t>(num_experts)), ids;
  std::iota(order.begin(), order.end(), 0);
  std::shuffle(order.begin(), order.end(), random);
  std::vector<double> weights(order.size());
  for (size_t i = 0; i < weights.size(); ++i) weights[i] = 1.0 / static_cast<double>(i + 1);
  std::discrete_distribution<size_t> drawn(weights.begin(), weights.end());
  size_t next = 0;  // of order, for balanced
  for (int64_t token = 0; token < num_tokens; ++token) {
    const size_t first = ids.size();
    while (ids.size() < first + static_cast<size_t>(k)) {
      if (routing == Routing::balanced && next == order.size()) {
        std::shuffle(order.begin(), order.end(), random);
        next = 0;
      }
      const int32_t id = order[routing == Routing::balanced ? next++ : drawn(random)];
      if (std::find(ids.begin() + static_cast<std::ptrdiff_t>(first), ids.end(), id) == ids.end())
        ids.push_back(id);
    }
  }
  return ids;
}

}  // namespace moerun
