#include "comm/backends.h"

#include <fmt/format.h>

#include "comm/mpi_collective.h"
#include "comm/mpi_env.h"
#include "comm/mpi_exchange.h"
#include "moerun/error.h"

namespace moerun {

namespace {

int size_of_comm(MPI_Comm comm) {
  int size = 0;
  MPI_CHECK(MPI_Comm_size(comm, &size));
  return size;
}

}  // namespace

Backends make_backends(const BackendRequest& request) {
  using AllToAll = Job::Parallel::AllToAll;
  Device& device = *request.device;
  Backends out;
  if (size_of_comm(request.tp) == 1) {
    out.tp = std::make_unique<LocalCollective>(device);
  } else {
    const size_t bytes =
        static_cast<size_t>(request.group_tokens * request.hidden_size) * moerun::size_of(device.dtype());
    out.tp = std::make_unique<MpiCollective>(request.tp, device, bytes, request.progress);
  }
  if (size_of_comm(request.ep) == 1) {
    out.exchange = std::make_unique<LocalExchange>(device, request.part_tokens, request.hidden_size);
    out.why = "one rank holds all experts";
  } else {
    if (request.all_to_all == AllToAll::nccl || request.all_to_all == AllToAll::p2p)
      throw BadInput(fmt::format("parallel.all_to_all: {} needs device: cuda",
                                 request.all_to_all == AllToAll::nccl ? "nccl" : "p2p"));
    out.exchange = std::make_unique<MpiExchange>(
        request.ep, *request.experts, device,
        MpiExchange::Options{.max_tokens = static_cast<int32_t>(request.part_tokens),
                             .hidden = static_cast<int32_t>(request.hidden_size),
                             .num_experts_per_tok = static_cast<int32_t>(request.num_experts_per_tok),
                             .progress = request.progress});
    out.why = device.host_memory() ? "the host's memory is the device's" : "asked for";
  }
  out.all_to_all = out.exchange->name();
  return out;
}

}  // namespace moerun
