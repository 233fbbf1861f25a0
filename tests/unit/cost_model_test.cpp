#include "comm/cost_model.h"

#include <bit>
#include <cmath>

#include "tests/catch.h"

using namespace moerun;

namespace {

bool close(double a, double b) { return std::abs(a - b) <= 1e-12 * std::abs(b); }

/// The mean over every choice of k experts, one by one.
double counted_ranks(int experts, int k, int ranks) {
  double choices = 0, found = 0;
  for (unsigned chosen = 0; chosen < 1U << experts; ++chosen) {
    if (std::popcount(chosen) != k) continue;
    ++choices;
    const unsigned block = (1U << (experts / ranks)) - 1;
    for (int rank = 0; rank < ranks; ++rank) found += (chosen >> (rank * experts / ranks) & block) != 0;
  }
  return found / choices;
}

}  // namespace

TEST_CASE("the expected number of ranks is the mean over all choices of experts", "[cost_model]") {
  for (const auto& [experts, k] : {std::pair{8, 1}, {8, 3}, {12, 5}, {16, 8}, {16, 16}})
    for (const int ranks : {1, 2, 4})
      CHECK(close(
          expected_ranks({.ranks = ranks, .tokens = 1, .num_experts = experts, .num_experts_per_tok = k}),
          counted_ranks(experts, k, ranks)));
}

TEST_CASE("bytes and time of an exchange", "[cost_model]") {
  // One expert a token on two ranks: half of the tokens go to the other one.
  const ExchangeLoad load{.ranks = 2,
                          .tokens = 100,
                          .hidden_size = 10,
                          .element_bytes = 2,
                          .num_experts = 8,
                          .num_experts_per_tok = 1};
  const ExchangeCost once = cost_once_a_rank(load), all = cost_all_gather(load);
  CHECK(close(once.dispatch_bytes, 50 * (20 + 8)));
  CHECK(close(once.combine_bytes, 50 * 20));
  CHECK(close(all.dispatch_bytes, 100 * (20 + 8)));
  CHECK(close(all.combine_bytes, 100 * 20));
  CHECK(close(once.seconds(1e3), 2.4));
}

TEST_CASE("one rank sends nothing; with every expert chosen, both ways move the same", "[cost_model]") {
  ExchangeLoad load{.ranks = 1, .tokens = 7, .hidden_size = 64, .num_experts = 16, .num_experts_per_tok = 2};
  CHECK(cost_once_a_rank(load).bytes() == 0);
  CHECK(cost_all_gather(load).bytes() == 0);
  load.ranks = 4;
  CHECK(cost_once_a_rank(load).bytes() < cost_all_gather(load).bytes());
  load.num_experts_per_tok = 16;
  CHECK(close(cost_once_a_rank(load).bytes(), cost_all_gather(load).bytes()));
}
