// The experts' permutation against a plan made here in plain loops: exact.
#include <algorithm>
#include <random>

#include "kernels/cuda/moe_permute.h"
#include "tests/catch.h"
#include "tests/gpu/device_array.h"

using namespace moerun;
using namespace moerun::test;

namespace {

struct Case {
  int32_t n, k, experts;
  MoeTiling tiling;
};

/// A step's routing: with `few` experts in use, some of them not local, some pairs marked as computed
/// elsewhere.
struct Routing {
  std::vector<int32_t> ids, slots;
  std::vector<float> weights;

  Routing(const Case& c, int32_t few, std::mt19937_64& random) {
    const auto below = [&](int32_t bound) {
      return static_cast<int32_t>(random() % static_cast<uint64_t>(bound));
    };
    int32_t local = 0;
    for (int32_t e = 0; e < c.experts; ++e) slots.push_back(below(4) == 0 ? -1 : local++);
    for (int32_t i = 0; i < c.n * c.k; ++i) {
      ids.push_back(below(9) == 0 ? -1 - below(3) : below(std::min(few, c.experts)));
      weights.push_back(static_cast<float>(below(1000)));
    }
  }
};

struct Expected {
  std::vector<RoutedRow> rows;
  std::vector<MoeTile> tiles;
  std::vector<unsigned long long> tokens;

  Expected(const Case& c, const Routing& routing) : tokens(static_cast<size_t>(c.experts)) {
    for (int32_t e = 0; e < c.experts; ++e) {
      const int32_t slot = routing.slots[static_cast<size_t>(e)];
      if (slot < 0) continue;
      const auto begin = static_cast<int32_t>(rows.size());
      for (size_t i = 0; i < routing.ids.size(); ++i)
        if (routing.ids[i] == e) rows.push_back({static_cast<int32_t>(i), routing.weights[i]});
      const int32_t count = static_cast<int32_t>(rows.size()) - begin;
      tokens[static_cast<size_t>(e)] = static_cast<unsigned long long>(count);
      cut(c.tiling, slot, begin, count);
    }
  }

 private:
  void cut(const MoeTiling& tiling, int32_t slot, int32_t begin, int32_t count) {
    const auto first = static_cast<int32_t>(tiles.size());
    const int32_t num = (count + tiling.max_rows - 1) / tiling.max_rows;
    int32_t each = 0;
    while (each * num < count) each += tiling.row_step;
    for (int32_t t = 0; t < num; ++t) {
      const int32_t group = t - t % MoeTile::kMaxGroup;
      tiles.push_back({.slot = slot,
                       .row_begin = begin + t * each,
                       .rows = std::min(each, count - t * each),
                       .group = (first + group) * 16 + std::min(MoeTile::kMaxGroup, num - group)});
    }
  }
};

void check(Arena& arena, const Stream& stream, const Case& c, const Routing& routing) {
  CAPTURE(c.n, c.k, c.experts, c.tiling.max_rows, c.tiling.row_step);
  const Expected expected(c, routing);
  const size_t bytes = moe_plan_bytes(c.n, c.k, c.experts);
  void* const room = arena.allocate(bytes, "test");
  CUDA_CHECK(cudaMemset(room, 0x5a, bytes));
  const MoePlan plan = moe_plan_in(room, c.n, c.k, c.experts);
  unsigned long long* const tokens =
      put(arena, std::vector<unsigned long long>(static_cast<size_t>(c.experts), 3));
  launch_moe_permute({.topk_ids = put(arena, routing.ids),
                      .topk_weights = put(arena, routing.weights),
                      .local_slot = put(arena, routing.slots),
                      .num_tokens = c.n,
                      .k = c.k,
                      .num_experts = c.experts,
                      .tiling = c.tiling,
                      .plan = plan,
                      .expert_tokens = tokens},
                     stream);
  CUDA_CHECK(cudaStreamSynchronize(stream));

  const MoeCounters counters = get<MoeCounters>(plan.counters, 1)[0];
  REQUIRE(counters.num_rows == static_cast<int32_t>(expected.rows.size()));
  REQUIRE(counters.num_tiles == static_cast<int32_t>(expected.tiles.size()));
  CHECK(counters.next_ticket == 0);
  const auto same_row = [](const RoutedRow& a, const RoutedRow& b) {
    return a.pair == b.pair && a.weight == b.weight;
  };
  const auto same_tile = [](const MoeTile& a, const MoeTile& b) {
    return a.slot == b.slot && a.row_begin == b.row_begin && a.rows == b.rows && a.group == b.group;
  };
  CHECK(std::ranges::equal(get<RoutedRow>(plan.rows, expected.rows.size()), expected.rows, same_row));
  CHECK(std::ranges::equal(get<MoeTile>(plan.tiles, expected.tiles.size()), expected.tiles, same_tile));
  CHECK(get<int32_t>(plan.tile_arrivals, expected.tiles.size()) ==
        std::vector<int32_t>(expected.tiles.size(), 0));
  const auto counted = get<unsigned long long>(tokens, expected.tokens.size());
  for (size_t e = 0; e < counted.size(); ++e) CHECK(counted[e] == 3 + expected.tokens[e]);
}

}  // namespace

TEST_CASE("gpu: the permutation of every size, of each number of experts", "[gpu]") {
  const uint64_t seed = std::random_device()();
  CAPTURE(seed);
  std::mt19937_64 random(seed);
  const Stream stream;
  const MoeTiling tilings[] = {{64, 32}, {128, 32}, {160, 8}, {256, 32}};
  // Sizes where blocks, clusters and launches begin to be more, at eight pairs a token.
  for (const int32_t n : {1, 3, 64, 65, 511, 1024, 1025, 5000, 16384, 16385})
    for (const int32_t experts : {3, 128, 511, 512}) {
      for (const int32_t few : {experts, 2}) {
        Arena arena(size_t{64} << 20);
        const Case c{.n = n, .k = random() % 2 ? 8 : 5, .experts = experts, .tiling = tilings[random() % 4]};
        check(arena, stream, c, Routing(c, few, random));
      }
    }
}
