// Where copies of experts go, and how evenly the ranks then share the tokens that were counted.
#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>
#include <set>

#include "layout/expert_copies.h"
#include "tests/catch.h"

using namespace moerun;

namespace {

/// The busiest rank against the mean, by who computes which turn.
double max_over_mean(const ExpertMap& map, const std::vector<uint64_t>& tokens,
                     const std::vector<ExpertCopy>& copies) {
  const std::vector<int32_t> ranks = ranks_of_turns(map, copies);
  std::vector<double> load(static_cast<size_t>(map.ep_size()), 0);
  for (size_t i = 0; i < ranks.size(); ++i)
    load[static_cast<size_t>(ranks[i])] += static_cast<double>(tokens[i / kExpertTurns]) / kExpertTurns;
  const double total = std::accumulate(load.begin(), load.end(), 0.0);
  return total == 0 ? 1 : *std::max_element(load.begin(), load.end()) * map.ep_size() / total;
}

/// Checks what holds for every placement.
void check_sound(const ExpertMap& map, const std::vector<ExpertCopy>& copies) {
  const std::vector<int32_t> ranks = ranks_of_turns(map, copies);
  REQUIRE(ranks.size() == static_cast<size_t>(map.num_experts() * kExpertTurns));
  for (int rank = 0; rank < map.ep_size(); ++rank) {
    const std::vector<int32_t> slots = slots_with_copies(map, copies, rank);
    const auto own = static_cast<int>(map.experts_of(rank).size());
    std::set<int32_t> used;
    for (int expert = 0; expert < map.num_experts(); ++expert) {
      const int32_t slot = slots[static_cast<size_t>(expert)];
      if (map.rank_of(expert) == rank) CHECK(slot == map.slot_of(expert));  // nothing leaves its home
      if (slot >= 0) CHECK(used.insert(slot).second);
      CHECK(slot < own + map.num_redundant_slots(rank));
      // Who computes an expert has it.
      for (int turn = 0; turn < kExpertTurns; ++turn)
        if (ranks[static_cast<size_t>(expert * kExpertTurns + turn)] == rank) CHECK(slot >= 0);
    }
  }
}

std::vector<uint64_t> zipf(int num_experts, double exponent) {
  std::vector<uint64_t> tokens;
  for (int i = 1; i <= num_experts; ++i)
    tokens.push_back(static_cast<uint64_t>(100000.0 / std::pow(i, exponent)));
  return tokens;
}

}  // namespace

TEST_CASE("redundant slots even out the ranks' numbers of slots", "[experts]") {
  for (const int experts : {5, 30, 32, 128})
    for (const int ranks : {2, 3, 4, 8})
      for (const int redundant : {0, 1, 2, 7, 8, 32}) {
        const ExpertMap map(experts, ranks, redundant);
        int total = 0, least = 1 << 30, most = 0;
        for (int rank = 0; rank < ranks; ++rank) {
          const int slots = static_cast<int>(map.experts_of(rank).size()) + map.num_redundant_slots(rank);
          total += slots;
          least = std::min(least, slots);
          most = std::max(most, slots);
          CHECK(map.num_redundant_slots(rank) >= 0);
        }
        CHECK(total == experts + redundant);
        CHECK(most - least <= 1);
        CHECK(map.ranks() == ExpertMap(experts, ranks).ranks());
      }
}

TEST_CASE("a load that is even, or is not there, gets no copies", "[experts]") {
  const ExpertMap map(32, 4, 8);
  CHECK(place_copies(map, std::vector<uint64_t>(32, 1000)).empty());
  CHECK(place_copies(map, std::vector<uint64_t>(32, 0)).empty());
  CHECK(place_copies(ExpertMap(32, 4, 0), zipf(32, 1.2)).empty());
}

TEST_CASE("one expert that takes all is shared by the ranks that have a slot for it", "[experts]") {
  for (const int ranks : {2, 4, 8}) {
    const ExpertMap map(32, ranks, ranks);
    std::vector<uint64_t> tokens(32, 0);
    tokens[5] = 12345;
    const std::vector<ExpertCopy> copies = place_copies(map, tokens);
    check_sound(map, copies);
    CHECK(copies.size() == static_cast<size_t>(ranks - 1));
    CHECK(max_over_mean(map, tokens, {}) == Approx(ranks));
    CHECK(max_over_mean(map, tokens, copies) <= 1.1);
  }
}

TEST_CASE("skewed loads come to at most 1.1 times the mean", "[experts]") {
  const uint64_t seed = std::random_device()();
  INFO("seed " << seed);
  std::mt19937_64 random(seed);
  struct Case {
    int experts, ranks, redundant;
    double exponent;
    bool sorted;  // the hottest experts all live on rank 0, as badly as can be
  };
  for (const Case& c : {Case{128, 8, 16, 1.0, false}, Case{128, 8, 16, 1.2, false},
                        Case{128, 8, 16, 1.0, true}, Case{128, 8, 24, 1.2, true}, Case{128, 8, 8, 0.6, false},
                        Case{32, 4, 8, 0.8, false}, Case{32, 4, 8, 1.0, true}, Case{32, 2, 4, 1.0, true},
                        Case{30, 4, 6, 1.0, false}, Case{64, 3, 9, 1.0, true}}) {
    CAPTURE(c.experts, c.ranks, c.redundant, c.exponent, c.sorted);
    const ExpertMap map(c.experts, c.ranks, c.redundant);
    for (int draw = 0; draw < (c.sorted ? 1 : 20); ++draw) {
      std::vector<uint64_t> tokens = zipf(c.experts, c.exponent);
      if (!c.sorted) std::shuffle(tokens.begin(), tokens.end(), random);
      const std::vector<ExpertCopy> copies = place_copies(map, tokens);
      check_sound(map, copies);
      CHECK(copies.size() <= static_cast<size_t>(c.redundant));
      CHECK(max_over_mean(map, tokens, copies) <= 1.1);
      CHECK(place_copies(map, tokens) == copies);
      if (c.sorted) CHECK(max_over_mean(map, tokens, {}) > 1.3);
    }
  }
}

TEST_CASE("too few slots make it better where they can, and never worse", "[experts]") {
  std::mt19937_64 random(std::random_device{}());
  for (int draw = 0; draw < 50; ++draw) {
    const int experts = 1 + static_cast<int>(random() % 40), ranks = 2 + static_cast<int>(random() % 6);
    const ExpertMap map(experts, ranks, static_cast<int>(random() % 5));
    std::vector<uint64_t> tokens;
    for (int i = 0; i < experts; ++i) tokens.push_back(random() % 3 == 0 ? 0 : random() % 10000);
    const std::vector<ExpertCopy> copies = place_copies(map, tokens);
    check_sound(map, copies);
    CHECK(max_over_mean(map, tokens, copies) <= max_over_mean(map, tokens, {}));
  }
}

TEST_CASE("tokens spread evenly over the turns, whichever of them an expert gets", "[experts]") {
  for (int rank = 0; rank < 8; ++rank)
    for (int stride = 1; stride <= 16; ++stride) {
      CAPTURE(rank, stride);
      constexpr int kTokens = 640;
      std::vector<int> count(kExpertTurns, 0);
      for (int i = 0; i < kTokens; ++i) ++count[static_cast<size_t>(turn_of(rank, rank % 3 + i * stride))];
      // The turns of a copy that has a quarter of them.
      for (int first = 0; first < kExpertTurns; first += 16) {
        const int quarter = std::accumulate(count.begin() + first, count.begin() + first + 16, 0);
        CHECK(std::abs(quarter - kTokens / 4) <= kTokens / 20);
      }
    }
}
