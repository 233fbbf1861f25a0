#include "device/gpu_of_rank.h"
#include "tests/catch.h"

using namespace moerun;

TEST_CASE("a rank's GPU: its only one, its local rank's, or a share of one") {
  CHECK(gpu_of_rank(3, 1, false) ==
        0);  // the launcher shows each rank its own; ranks that share are found later
  CHECK(gpu_of_rank(3, 1, true) == 0);
  CHECK(gpu_of_rank(3, 4, false) == 3);
  CHECK(gpu_of_rank(3, 4, true) == 3);
  CHECK(gpu_of_rank(3, 2, true) == 1);
  CHECK(gpu_of_rank(2, 2, true) == 0);
  CHECK_THROWS_AS(gpu_of_rank(2, 2, false), Error);
  CHECK_THROWS_AS(gpu_of_rank(0, 0, true), Error);
}
