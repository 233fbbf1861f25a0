#include "comm/backends.h"

#include <fmt/format.h>

#include <algorithm>

#include "comm/exchange_choice.h"
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
  const size_t hidden = static_cast<size_t>(request.hidden_size) * moerun::size_of(request.device->dtype());
  const size_t sums = static_cast<size_t>(request.head_sums) * sizeof(float);
  return static_cast<size_t>(request.group_tokens) * std::max(hidden, sums);
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

Backends gpu_backends(const BackendRequest& request) {
  Device& device = *request.device;
  const int ranks = size_of_comm(request.ep);
  const GpuLinks links = ranks > 1 ? gpu_links(request.ep) : GpuLinks();
  const ExchangeChoice picked = ranks > 1 ? choose_exchange(request.all_to_all, *request.experts, links)
                                          : ExchangeChoice{AllToAll::automatic, "one rank holds all experts"};
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
