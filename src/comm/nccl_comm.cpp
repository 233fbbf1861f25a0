#include "comm/nccl_comm.h"

#include <fmt/format.h>

#include <cstdlib>
#include <thread>
#include <utility>

#include "comm/mpi_env.h"
#include "moerun/error.h"

namespace moerun {

void nccl_check(ncclResult_t status, const char* call, const char* file, int line) {
  if (status == ncclSuccess || status == ncclInProgress) return;
  throw Error(fmt::format("NCCL: {} ({}) from {} at {}:{}", ncclGetErrorString(status),
                          ncclGetLastError(nullptr), call, file, line));
}

NcclComm::NcclComm(MPI_Comm mpi, std::string name, std::chrono::seconds deadline)
    : name_(std::move(name)), deadline_(deadline) {
  MPI_CHECK(MPI_Comm_rank(mpi, &rank_));
  MPI_CHECK(MPI_Comm_size(mpi, &size_));
  setenv("NCCL_NVLS_ENABLE", "0", 0);  // what the user set stays
  ncclUniqueId id{};
  if (rank_ == 0) NCCL_CHECK(ncclGetUniqueId(&id));
  MPI_CHECK(MPI_Bcast(&id, sizeof id, MPI_BYTE, 0, mpi));
  ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
  config.blocking = 0;
  NCCL_CHECK(ncclCommInitRankConfig(&comm_, size_, id, rank_, &config));
  settle();
}

NcclComm::~NcclComm() {
  if (comm_) ncclCommAbort(comm_);  // every operation was waited for by now; abort never blocks on a peer
}

ncclResult_t NcclComm::state() const {
  ncclResult_t state = ncclSuccess;
  NCCL_CHECK(ncclCommGetAsyncError(comm_, &state));
  if (state != ncclSuccess && state != ncclInProgress)
    throw Error(fmt::format("NCCL {} communicator, rank {} of {}: {} ({})", name_, rank_, size_,
                            ncclGetErrorString(state), ncclGetLastError(comm_)));
  return state;
}

void NcclComm::check() const { static_cast<void>(state()); }

void NcclComm::settle() const {
  const auto give_up = std::chrono::steady_clock::now() + deadline_;
  while (state() == ncclInProgress) {
    if (std::chrono::steady_clock::now() > give_up)
      throw Error(fmt::format("NCCL {} communicator: rank {} of {} waited {} s for its peers", name_, rank_,
                              size_, deadline_.count()));
    std::this_thread::yield();
  }
}

}  // namespace moerun
