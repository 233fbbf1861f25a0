#include <set>

#include "layout/topology.h"
#include "moerun/error.h"
#include "tests/catch.h"

using namespace moerun;

TEST_CASE("world ranks and coordinates are inverse, tensor innermost", "[topology]") {
  const Layout layout{.tensor = 4, .data = 2, .replicas = 3};
  REQUIRE(layout.world_size() == 24);
  for (int rank = 0; rank < layout.world_size(); ++rank) {
    const Coordinates at = coordinates_of(layout, rank);
    CHECK(world_rank_of(layout, at) == rank);
    CHECK(at.tensor < 4);
    CHECK(at.data < 2);
    CHECK(at.replica < 3);
    CHECK(ep_rank_of(layout, rank) == at.data * 4 + at.tensor);
  }
  CHECK(coordinates_of(layout, 1).tensor == 1);
  CHECK(coordinates_of(layout, 4).data == 1);
  CHECK(coordinates_of(layout, 8).replica == 1);
  CHECK(leaders_of(layout) == std::vector<int>{0, 4, 8, 12, 16, 20});
}

TEST_CASE("an omitted data size is what the ranks leave; what does not come out is refused", "[topology]") {
  CHECK(make_layout(8, 4, 0, 1).data == 2);
  CHECK(make_layout(8, 2, 0, 2).data == 2);
  CHECK(make_layout(1, 1, 0, 1).world_size() == 1);
  CHECK_THROWS_AS(make_layout(8, 3, 0, 1), BadInput);
  CHECK_THROWS_AS(make_layout(8, 4, 4, 1), BadInput);
  CHECK_THROWS_AS(make_layout(8, 0, 0, 1), BadInput);
}

TEST_CASE("every expert lives on exactly one rank, and the loads differ by one at most", "[topology]") {
  for (const int experts : {1, 5, 8, 30, 32, 128}) {
    for (const int ranks : {1, 2, 3, 4, 7, 8, 16}) {
      const ExpertMap map(experts, ranks);
      size_t smallest = map.experts_of(0).size(), largest = 0, total = 0;
      for (int rank = 0; rank < ranks; ++rank) {
        const auto& mine = map.experts_of(rank);
        const std::vector<int32_t> slots = map.local_slots(rank);
        smallest = std::min(smallest, mine.size());
        largest = std::max(largest, mine.size());
        total += mine.size();
        std::set<int32_t> used;
        for (int expert = 0; expert < experts; ++expert) {
          const auto slot = slots[static_cast<size_t>(expert)];
          CHECK((slot >= 0) == (map.rank_of(expert) == rank));
          if (slot < 0) continue;
          CHECK(map.slot_of(expert) == slot);
          CHECK(mine[static_cast<size_t>(slot)] == expert);
          CHECK(used.insert(slot).second);
        }
        CHECK(used.size() == mine.size());
      }
      CHECK(total == static_cast<size_t>(experts));
      CHECK(largest - smallest <= 1);
    }
  }
}
