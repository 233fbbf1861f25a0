// The pure arithmetic of the GPU exchanges.
#include <algorithm>
#include <numeric>
#include <random>

#include "comm/exchange_options.h"
#include "comm/token_lists.h"
#include "layout/topology.h"
#include "tests/catch.h"

using namespace moerun;

TEST_CASE("one subtree a rank: which expert maps have it", "[comm]") {
  for (const auto& [experts, ranks, yes] : {std::tuple{128, 8, true},
                                            {128, 1, true},
                                            {32, 4, true},
                                            {128, 3, false},
                                            {128, 6, false},
                                            {30, 4, false}})
    CHECK(one_subtree_a_rank(ExpertMap(experts, ranks).ranks(), ranks) == yes);
  std::vector<int32_t> swapped = ExpertMap(32, 4).ranks();
  std::swap(swapped[7], swapped[8]);
  CHECK_FALSE(one_subtree_a_rank(swapped, 4));
}

TEST_CASE("token lists: each token once to each rank that holds one of its experts, and found again",
          "[comm]") {
  const uint64_t seed = std::random_device()();
  CAPTURE(seed);
  std::mt19937_64 random(seed);
  for (const auto& [experts, ranks, k, n] :
       {std::tuple{128, 8, 8, 300}, {32, 4, 3, 17}, {8, 2, 8, 5}, {16, 16, 1, 40}, {64, 4, 2, 0}}) {
    CAPTURE(experts, ranks, k, n);
    std::vector<int32_t> rank_of(static_cast<size_t>(experts)), all(rank_of.size()), ids;
    for (int32_t& rank : rank_of) rank = static_cast<int32_t>(random() % static_cast<uint64_t>(ranks));
    std::iota(all.begin(), all.end(), 0);
    for (int t = 0; t < n; ++t) {
      std::shuffle(all.begin(), all.end(), random);
      ids.insert(ids.end(), all.begin(), all.begin() + k);
    }
    TokenLists lists;
    lists.tokens = {99};  // what an earlier layer left
    list_tokens(ids, k, rank_of, ranks, lists);
    size_t at = 0;
    for (int32_t rank = 0; rank < ranks; ++rank) {
      std::vector<int32_t> expected;
      for (int32_t t = 0; t < n; ++t)
        if (std::any_of(ids.begin() + t * k, ids.begin() + (t + 1) * k,
                        [&](int32_t id) { return rank_of[static_cast<size_t>(id)] == rank; }))
          expected.push_back(t);
      REQUIRE(lists.count[static_cast<size_t>(rank)] == static_cast<int32_t>(expected.size()));
      for (const int32_t token : expected) {
        CHECK(lists.tokens[at] == token);
        CHECK(lists.row_of[static_cast<size_t>(rank * n + token)] == static_cast<int32_t>(at));
        ++at;
      }
    }
    CHECK(at == lists.tokens.size());
  }
}
