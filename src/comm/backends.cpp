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

ExchangeOptions options_of(const BackendRequest& request) {
  return {.rank_of = request.experts->ranks(),
          .copies = request.experts->num_redundant() > 0,
          .max_tokens = static_cast<int32_t>(request.part_tokens),
          .hidden = static_cast<int32_t>(request.hidden_size),
          .num_experts_per_tok = static_cast<int32_t>(request.num_experts_per_tok)};
}

constexpr ExchangeMakers kMakers{
    .p2p =
        [](const BackendRequest& request) {
          return make_p2p_exchange(request.ep, *request.device, options_of(request));
        },
    .nccl =
        [](const BackendRequest& request) {
          return make_nccl_exchange(request.ep, *request.device, options_of(request), request.progress);
        },
    .mpi = mpi_exchange};

EngineLinks links_of(const BackendRequest& request) {
  if (request.device->host_memory()) return {.gpus = false};
  return size_of_comm(request.ep) > 1 ? gpu_links(request.ep) : EngineLinks();
}

std::unique_ptr<Collective> gpu_collective(const BackendRequest& request) {
  return make_nccl_collective(request.tp, *request.device, group_bytes(request));
}

#else

constexpr ExchangeMakers kMakers{.mpi = mpi_exchange};

EngineLinks links_of(const BackendRequest& request) {
  if (!request.device->host_memory()) throw Error("this program was built without CUDA");
  return {.gpus = false};
}

std::unique_ptr<Collective> gpu_collective(const BackendRequest&) {
  throw Error("this program was built without CUDA");
}

#endif

}  // namespace

Backends make_backends(const BackendRequest& request) {
  const EngineLinks links = links_of(request);
  Backends out;
  bool nccl = false;
  if (size_of_comm(request.ep) == 1) {
    if (request.all_to_all != AllToAll::automatic)  // also where there is nothing to exchange
      choose_exchange(request.all_to_all, *request.experts, links);
    out.exchange = std::make_unique<LocalExchange>();
    out.why = "one rank holds all experts";
  } else {
    const ExchangeChoice choice = choose_exchange(request.all_to_all, *request.experts, links);
    out.exchange = (kMakers.*choice.backend->make)(request);
    out.why = choice.why;
    nccl = choice.backend->all_to_all == AllToAll::nccl;
  }
  // NCCL takes ranks that share a GPU where the exchange by it was allowed that.
  if (size_of_comm(request.tp) == 1)
    out.tp = std::make_unique<LocalCollective>(*request.device);
  else if (links.gpus && (!links.shared || nccl))
    out.tp = gpu_collective(request);
  else
    out.tp = mpi_collective(request);
  out.all_to_all = out.exchange->name();
  return out;
}

}  // namespace moerun
