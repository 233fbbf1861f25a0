#include "comm/exchange_table.h"

#include <fmt/format.h>

#include <algorithm>

#include "comm/exchange_options.h"
#include "kernels/cuda/limits.h"
#include "moerun/error.h"

namespace moerun {

using AllToAll = Job::Parallel::AllToAll;

namespace {

std::vector<ExchangeRefusal> refuse_p2p(const ExpertMap& experts, const EngineLinks& links) {
  std::vector<ExchangeRefusal> out;
  if (!links.gpus) out.push_back({"p2p needs device: cuda"});
  if (experts.ep_size() == 1) return out;
  if (experts.ep_size() > limits::kMaxP2pRanks)
    out.push_back(
        {fmt::format("p2p is for {} ranks at most, not {}", limits::kMaxP2pRanks, experts.ep_size()),
         "use nccl or mpi"});
  if (!links.one_node)
    out.push_back(
        {"p2p: the ranks of an engine are on several nodes", "use nccl or mpi, or one replica a node"});
  else if (!links.peer_access)
    out.push_back({"p2p: a rank's GPU cannot address every other one (is each rank shown one GPU alone?)",
                   "use nccl or mpi"});
  return out;
}

std::vector<ExchangeRefusal> refuse_nccl(const ExpertMap& experts, const EngineLinks& links) {
  std::vector<ExchangeRefusal> out;
  if (!links.gpus) out.push_back({"nccl needs device: cuda"});
  if (experts.ep_size() == 1) return out;
  if (experts.num_redundant() > 0)
    out.push_back({"the all-to-all by nccl knows no copies of experts", "set parallel.all_to_all: p2p or mpi",
                   "parallel.redundant_experts"});
  else if (!one_subtree_a_rank(experts.ranks(), experts.ep_size()))
    out.push_back(
        {fmt::format("nccl needs a power of two of ranks that divides the experts evenly; here {} experts "
                     "are on {} ranks",
                     experts.num_experts(), experts.ep_size()),
         "use p2p or mpi"});
  if (!links.nccl)
    out.push_back(
        {"nccl: ranks of an engine share a GPU",
         "use p2p or mpi (NCCL takes two on one from 2.30.3 on, with NCCL_MULTI_RANK_GPU_ENABLE=1 in every "
         "rank's environment)"});
  return out;
}

std::vector<ExchangeRefusal> refuse_nothing(const ExpertMap&, const EngineLinks&) { return {}; }

constexpr ExchangeBackend kBackends[] = {
    {AllToAll::p2p, "p2p", "every rank's GPU can address every other one of the engine", refuse_p2p,
     &ExchangeMakers::p2p},
    {AllToAll::nccl, "nccl", "", refuse_nccl, &ExchangeMakers::nccl},
    {AllToAll::mpi, "mpi", "", refuse_nothing, &ExchangeMakers::mpi},
};

}  // namespace

std::span<const ExchangeBackend> exchange_backends() { return kBackends; }

const ExchangeBackend& exchange_backend(AllToAll all_to_all) {
  const auto* const found =
      std::find_if(std::begin(kBackends), std::end(kBackends),
                   [all_to_all](const ExchangeBackend& backend) { return backend.all_to_all == all_to_all; });
  if (found == std::end(kBackends)) throw Error("an exchange that is not in the table");
  return *found;
}

}  // namespace moerun
