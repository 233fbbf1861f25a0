#include "comm/exchange_choice.h"

#include <set>
#include <string>

#include "moerun/error.h"
#include "tests/catch.h"

using namespace moerun;
using AllToAll = Job::Parallel::AllToAll;

namespace {

const ExpertMap kRegular(16, 2), kUneven(16, 3), kRedundant(16, 2, 2);

AllToAll automatic(const ExpertMap& experts, const EngineLinks& links) {
  return choose_exchange(AllToAll::automatic, experts, links).backend->all_to_all;
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
  const EngineLinks shared{.shared = true, .nccl = false}, nodes{.one_node = false, .peer_access = false},
      hidden{.peer_access = false};
  for (const AllToAll asked : {AllToAll::mpi, AllToAll::p2p, AllToAll::nccl})
    CHECK(choose_exchange(asked, kRegular, {}).backend->all_to_all == asked);
  CHECK_THROWS_WITH(choose_exchange(AllToAll::nccl, kRegular, shared),
                    ContainsSubstring("share a GPU: use p2p or mpi") && ContainsSubstring("2.30.3") &&
                        ContainsSubstring("NCCL_MULTI_RANK_GPU_ENABLE=1"));
  CHECK_THROWS_AS(choose_exchange(AllToAll::nccl, kRegular, shared), BadInput);
  CHECK(choose_exchange(AllToAll::nccl, kRegular, {.shared = true, .nccl = true}).backend->all_to_all ==
        AllToAll::nccl);
  CHECK(choose_exchange(AllToAll::p2p, kRegular, shared).backend->all_to_all == AllToAll::p2p);
  CHECK_THROWS_WITH(choose_exchange(AllToAll::p2p, kRegular, nodes), ContainsSubstring("several nodes"));
  CHECK_THROWS_WITH(choose_exchange(AllToAll::p2p, kRegular, hidden), ContainsSubstring("cannot address"));
  CHECK(choose_exchange(AllToAll::nccl, kRegular, nodes).backend->all_to_all == AllToAll::nccl);
}

TEST_CASE("auto: p2p where GPUs reach each other, else nccl where it can, mpi for shared GPUs",
          "[exchange_choice]") {
  CHECK(automatic(kRedundant, {}) == AllToAll::p2p);
  for (const EngineLinks& links : {EngineLinks{.peer_access = false}, EngineLinks{.one_node = false}}) {
    CHECK(automatic(kRegular, links) == AllToAll::nccl);
    CHECK(automatic(kUneven, links) == AllToAll::mpi);
    CHECK(automatic(kRedundant, links) == AllToAll::mpi);
  }
  for (const bool nccl : {false, true})
    CHECK(automatic(kRegular, {.shared = true, .nccl = nccl}) == AllToAll::mpi);
}

TEST_CASE("the table of exchanges: each is named once, says what refuses it, and how it is made",
          "[exchange_choice]") {
  std::set<std::string> names;
  for (const ExchangeBackend& backend : exchange_backends()) {
    CHECK(names.insert(backend.name).second);
    CHECK(&exchange_backend(backend.all_to_all) == &backend);
    CHECK(backend.refuses(kRegular, {}).empty());
    CHECK(backend.make != nullptr);
  }
  CHECK(names == std::set<std::string>{"p2p", "nccl", "mpi"});
  // Of what numbers alone refuse, all is said at once.
  const ExpertMap many(66, 66);
  const auto refusals = exchange_backend(AllToAll::p2p).refuses(many, {.gpus = false, .one_node = false});
  REQUIRE(refusals.size() == 3);
  CHECK(refusals[0].text() == "p2p needs device: cuda");
  CHECK(refusals[1].text() == "p2p is for 64 ranks at most, not 66: use nccl or mpi");
  CHECK_THAT(refusals[2].text(), ContainsSubstring("several nodes"));
  CHECK(automatic(many, {.one_node = false}) == AllToAll::mpi);
  CHECK(automatic(ExpertMap(128, 128), {}) == AllToAll::nccl);  // too many for p2p
  CHECK(automatic(kRegular, {.gpus = false}) == AllToAll::mpi);
  CHECK(std::string(exchange_backend(AllToAll::nccl).refuses(kRedundant, {}).front().key) ==
        "parallel.redundant_experts");
  CHECK_THROWS_WITH(choose_exchange(AllToAll::nccl, kUneven, {}), ContainsSubstring("power of two"));
}
