#include "comm/backends.h"

#include <fmt/format.h>

#include "comm/mpi_collective.h"
#include "comm/mpi_env.h"
#include "comm/mpi_exchange.h"
#include "comm/timed_exchange.h"
#include "moerun/error.h"

#if MOERUN_CUDA
#include "comm/gpu_backends.h"
#endif

namespace moerun {

namespace {

using AllToAll = Job::Parallel::AllToAll;

int size_of_comm(MPI_Comm comm) {
  int size = 0;
  MPI_CHECK(MPI_Comm_size(comm, &size));
  return size;
}

size_t group_bytes(const BackendRequest& request) {
  return static_cast<size_t>(request.group_tokens * request.hidden_size) *
         moerun::size_of(request.device->dtype());
}

std::unique_ptr<Collective> mpi_collective(const BackendRequest& request) {
  return std::make_unique<MpiCollective>(request.tp, *request.device, group_bytes(request), request.progress);
}

std::unique_ptr<ExpertExchange> mpi_exchange(const BackendRequest& request) {
  return std::make_unique<TimedExchange>(std::make_unique<MpiExchange>(
      request.ep, *request.experts, *request.device,
      MpiExchange::Options{.max_tokens = static_cast<int32_t>(request.part_tokens),
                           .hidden = static_cast<int32_t>(request.hidden_size),
                           .num_experts_per_tok = static_cast<int32_t>(request.num_experts_per_tok),
                           .progress = request.progress}));
}

#if MOERUN_CUDA

/// An exchange and the reason for it, in one sentence.
struct Pick {
  AllToAll exchange;
  std::string why;
};

/// Throws BadInput when what was asked for cannot be had here.
Pick pick(const BackendRequest& request, const GpuLinks& links) {
  const bool nccl = !links.shared || nccl_takes_shared_gpus();
  const bool p2p = links.one_node && links.peer_access;
  switch (request.all_to_all) {
    case AllToAll::nccl:
      if (!nccl)
        throw BadInput(
            "parallel.all_to_all: nccl: ranks of an engine share a GPU, which NCCL takes from 2.30.3 on and "
            "with NCCL_MULTI_RANK_GPU_ENABLE=1 alone: use p2p or mpi");
      break;
    case AllToAll::p2p:
      if (!p2p)
        throw BadInput(
            links.one_node
                ? "parallel.all_to_all: p2p: a rank's GPU cannot address every other one (is each "
                  "rank shown one GPU alone?): use nccl or mpi"
                : "parallel.all_to_all: p2p: the ranks of an engine are on several nodes: use nccl "
                  "or mpi, or one replica a node");
      break;
    case AllToAll::mpi:
      break;
    case AllToAll::automatic:
      if (links.shared)
        return {AllToAll::mpi, "ranks share a GPU: through the host's memory, for tests alone"};
      if (p2p) return {AllToAll::p2p, "every rank's GPU can address every other one of the engine"};
      if (request.experts->num_redundant() == 0 &&
          one_subtree_a_rank(request.experts->ranks(), size_of_comm(request.ep)))
        return {AllToAll::nccl, links.one_node ? "a GPU cannot address every other one of the engine"
                                               : "the ranks of an engine are on several nodes"};
      return {
          AllToAll::mpi,
          "GPUs cannot address each other, and nccl takes no redundant experts and needs a power of two of "
          "ranks that divides the experts"};
  }
  return {request.all_to_all, "asked for"};
}

Backends gpu_backends(const BackendRequest& request) {
  Device& device = *request.device;
  const int ranks = size_of_comm(request.ep);
  const GpuLinks links = ranks > 1 ? gpu_links(request.ep) : GpuLinks();
  const Pick picked =
      ranks > 1 ? pick(request, links) : Pick{AllToAll::automatic, "one rank holds all experts"};
  Backends out{.why = picked.why};
  if (size_of_comm(request.tp) == 1)
    out.tp = std::make_unique<LocalCollective>(device);
  else if (!links.shared || picked.exchange == AllToAll::nccl)
    out.tp = make_nccl_collective(request.tp, device, group_bytes(request));
  else
    out.tp = mpi_collective(request);
  const ExchangeOptions options{.rank_of = request.experts->ranks(),
                                .copies = request.experts->num_redundant() > 0,
                                .max_tokens = static_cast<int32_t>(request.part_tokens),
                                .hidden = static_cast<int32_t>(request.hidden_size),
                                .num_experts_per_tok = static_cast<int32_t>(request.num_experts_per_tok)};
  switch (picked.exchange) {
    case AllToAll::automatic:
      out.exchange = std::make_unique<LocalExchange>();
      break;
    case AllToAll::mpi:
      out.exchange = mpi_exchange(request);
      break;
    case AllToAll::nccl:
      out.exchange = make_nccl_exchange(request.ep, device, options, request.progress);
      break;
    case AllToAll::p2p:
      out.exchange = make_p2p_exchange(request.ep, device, options);
      break;
  }
  return out;
}

#else

Backends gpu_backends(const BackendRequest&) { throw Error("this program was built without CUDA"); }

#endif

Backends host_backends(const BackendRequest& request) {
  if (request.all_to_all == AllToAll::nccl || request.all_to_all == AllToAll::p2p)
    throw BadInput(fmt::format("parallel.all_to_all: {} needs device: cuda",
                               request.all_to_all == AllToAll::nccl ? "nccl" : "p2p"));
  Backends out;
  if (size_of_comm(request.tp) == 1)
    out.tp = std::make_unique<LocalCollective>(*request.device);
  else
    out.tp = mpi_collective(request);
  if (size_of_comm(request.ep) == 1) {
    out.exchange = std::make_unique<LocalExchange>();
    out.why = "one rank holds all experts";
  } else {
    out.exchange = mpi_exchange(request);
    out.why = "the host's memory is the device's";
  }
  return out;
}

}  // namespace

Backends make_backends(const BackendRequest& request) {
  Backends out = request.device->host_memory() ? host_backends(request) : gpu_backends(request);
  out.all_to_all = out.exchange->name();
  return out;
}

}  // namespace moerun
