#include "comm/exchange_table.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "comm/exchange_options.h"
#include "kernels/cuda/limits.h"
#include "moerun/error.h"

namespace moerun {

using AllToAll = Job::Parallel::AllToAll;

namespace {

constexpr const char* kAllToAll = "parallel.all_to_all";

void refuse(std::vector<ExchangeRefusal>& out, const char* key, std::string why, const char* instead) {
  ExchangeRefusal& refusal = out.emplace_back();
  refusal.key = key;
  refusal.why = std::move(why);
  refusal.instead = instead;
}

std::vector<ExchangeRefusal> refuse_p2p(const ExpertMap& experts, const EngineLinks& links) {
  std::vector<ExchangeRefusal> out;
  if (!links.gpus) refuse(out, kAllToAll, "p2p needs device: cuda", "");
  if (experts.ep_size() == 1) return out;
  if (experts.ep_size() > limits::kMaxP2pRanks)
    refuse(out, kAllToAll,
           fmt::format("p2p is for {} ranks at most, not {}", limits::kMaxP2pRanks, experts.ep_size()),
           "use nccl or mpi");
  if (!links.one_node)
    refuse(out, kAllToAll, "p2p: the ranks of an engine are on several nodes",
           "use nccl or mpi, or one replica a node");
  else if (!links.peer_access)
    refuse(out, kAllToAll,
           "p2p: a rank's GPU cannot address every other one (is each rank shown one GPU alone?)",
           "use nccl or mpi");
  return out;
}

std::vector<ExchangeRefusal> refuse_nccl(const ExpertMap& experts, const EngineLinks& links) {
  std::vector<ExchangeRefusal> out;
  if (!links.gpus) refuse(out, kAllToAll, "nccl needs device: cuda", "");
  if (experts.ep_size() == 1) return out;
  if (experts.num_redundant() > 0)
    refuse(out, "parallel.redundant_experts", "the all-to-all by nccl knows no copies of experts",
           "set parallel.all_to_all: p2p or mpi");
  else if (!one_subtree_a_rank(experts.ranks(), experts.ep_size()))
    refuse(out, kAllToAll,
           fmt::format("nccl needs a power of two of ranks that divides the experts evenly; here {} experts "
                       "are on {} ranks",
                       experts.num_experts(), experts.ep_size()),
           "use p2p or mpi");
  if (!links.nccl)
    refuse(out, kAllToAll, "nccl: ranks of an engine share a GPU",
           "use p2p or mpi (NCCL takes two on one from 2.30.3 on, with NCCL_MULTI_RANK_GPU_ENABLE=1 in every "
           "rank's environment)");
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
