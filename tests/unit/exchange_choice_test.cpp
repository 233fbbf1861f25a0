#include "comm/exchange_choice.h"

#include "moerun/error.h"
#include "tests/catch.h"

using namespace moerun;
using AllToAll = Job::Parallel::AllToAll;

namespace {

const ExpertMap kRegular(16, 2), kUneven(16, 3), kRedundant(16, 2, 2);

AllToAll automatic(const ExpertMap& experts, const GpuLinks& links) {
  return choose_exchange(AllToAll::automatic, experts, links).exchange;
}

}  // namespace

TEST_CASE("NCCL takes ranks that share a GPU from 2.30.3 on, when it was told to", "[exchange_choice]") {
  for (const int version : {22803, 22907, 23002}) CHECK_FALSE(nccl_takes_shared_gpus(version, "1"));
  for (const int version : {23003, 23007, 23203}) {
    CHECK(nccl_takes_shared_gpus(version, "1"));
    for (const char* enabled : {"0", "", "yes"}) CHECK_FALSE(nccl_takes_shared_gpus(version, enabled));
    CHECK_FALSE(nccl_takes_shared_gpus(version, nullptr));
  }
}

TEST_CASE("an exchange that was asked for is had, or refused with what to do", "[exchange_choice]") {
  const GpuLinks shared{.shared = true, .nccl = false}, nodes{.one_node = false, .peer_access = false},
      hidden{.peer_access = false};
  for (const AllToAll asked : {AllToAll::mpi, AllToAll::p2p, AllToAll::nccl})
    CHECK(choose_exchange(asked, kRegular, {}).exchange == asked);
  CHECK_THROWS_WITH(choose_exchange(AllToAll::nccl, kRegular, shared),
                    ContainsSubstring("share a GPU: use p2p or mpi") && ContainsSubstring("2.30.3") &&
                        ContainsSubstring("NCCL_MULTI_RANK_GPU_ENABLE=1"));
  CHECK_THROWS_AS(choose_exchange(AllToAll::nccl, kRegular, shared), BadInput);
  CHECK(choose_exchange(AllToAll::nccl, kRegular, {.shared = true, .nccl = true}).exchange == AllToAll::nccl);
  CHECK(choose_exchange(AllToAll::p2p, kRegular, shared).exchange == AllToAll::p2p);
  CHECK_THROWS_WITH(choose_exchange(AllToAll::p2p, kRegular, nodes), ContainsSubstring("several nodes"));
  CHECK_THROWS_WITH(choose_exchange(AllToAll::p2p, kRegular, hidden), ContainsSubstring("cannot address"));
  CHECK(choose_exchange(AllToAll::nccl, kRegular, nodes).exchange == AllToAll::nccl);
}

TEST_CASE("auto: p2p where GPUs reach each other, else nccl where it can, mpi for shared GPUs",
          "[exchange_choice]") {
  CHECK(automatic(kRedundant, {}) == AllToAll::p2p);
  for (const GpuLinks& links : {GpuLinks{.peer_access = false}, GpuLinks{.one_node = false}}) {
    CHECK(automatic(kRegular, links) == AllToAll::nccl);
    CHECK(automatic(kUneven, links) == AllToAll::mpi);
    CHECK(automatic(kRedundant, links) == AllToAll::mpi);
  }
  for (const bool nccl : {false, true})
    CHECK(automatic(kRegular, {.shared = true, .nccl = nccl}) == AllToAll::mpi);
}
