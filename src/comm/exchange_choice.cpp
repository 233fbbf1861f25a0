#include "comm/exchange_choice.h"

#include <string_view>

#include "comm/exchange_options.h"
#include "moerun/error.h"

namespace moerun {

using AllToAll = Job::Parallel::AllToAll;

namespace {

ExchangeChoice choose_automatically(const ExpertMap& experts, const GpuLinks& links) {
  if (links.shared) return {AllToAll::mpi, "ranks share a GPU: through the host's memory, for tests alone"};
  if (links.one_node && links.peer_access)
    return {AllToAll::p2p, "every rank's GPU can address every other one of the engine"};
  if (experts.num_redundant() == 0 && one_subtree_a_rank(experts.ranks(), experts.ep_size()))
    return {AllToAll::nccl, links.one_node ? "a GPU cannot address every other one of the engine"
                                           : "the ranks of an engine are on several nodes"};
  return {AllToAll::mpi,
          "GPUs cannot address each other, and nccl takes no redundant experts and needs a power of two of "
          "ranks that divides the experts"};
}

}  // namespace

ExchangeChoice choose_exchange(AllToAll asked, const ExpertMap& experts, const GpuLinks& links) {
  if (asked == AllToAll::automatic) return choose_automatically(experts, links);
  if (asked == AllToAll::nccl && !links.nccl)
    throw BadInput(
        "parallel.all_to_all: nccl: ranks of an engine share a GPU: use p2p or mpi (NCCL takes two on one "
        "from 2.30.3 on, with NCCL_MULTI_RANK_GPU_ENABLE=1 in every rank's environment)");
  if (asked == AllToAll::p2p && !links.one_node)
    throw BadInput(
        "parallel.all_to_all: p2p: the ranks of an engine are on several nodes: use nccl or mpi, or one "
        "replica a node");
  if (asked == AllToAll::p2p && !links.peer_access)
    throw BadInput(
        "parallel.all_to_all: p2p: a rank's GPU cannot address every other one (is each rank shown one GPU "
        "alone?): use nccl or mpi");
  return {asked, "asked for"};
}

bool nccl_takes_shared_gpus(int version, const char* enabled) {
  constexpr int kFirst = 23003;  // 2.30.3, as NCCL_VERSION_CODE counts
  return version >= kFirst && enabled && std::string_view(enabled) == "1";
}

}  // namespace moerun
