#pragma once
#include <mpi.h>
#include <nccl.h>

#include <chrono>
#include <string>

namespace moerun {

/// Throws Error with NCCL's words, file and line unless the status is success or in progress.
void nccl_check(ncclResult_t status, const char* call, const char* file, int line);
#define NCCL_CHECK(call) ::moerun::nccl_check((call), #call, __FILE__, __LINE__)

/// One NCCL communicator over the ranks of an MPI communicator; the unique id travels over MPI. It is
/// non-blocking: nothing here waits for a peer longer than the deadline. Thread contract: the engine thread
/// alone, which has chosen its device.
class NcclComm {
 public:
  /// How long peers may take to come together or to take part in an operation's set-up.
  static constexpr std::chrono::seconds kDeadline{60};

  /// `name` is what errors call it ("tp", "ep"). Collective over `mpi`. Throws Error when the peers do not
  /// come together in time. NVLink multicast stays off unless the environment turns it on
  /// (NCCL_NVLS_ENABLE).
  NcclComm(MPI_Comm mpi, std::string name, std::chrono::seconds deadline = kDeadline);
  ~NcclComm();
  NcclComm(const NcclComm&) = delete;
  NcclComm& operator=(const NcclComm&) = delete;

  operator ncclComm_t() const { return comm_; }
  int rank() const { return rank_; }
  int size() const { return size_; }
  /// Waits until the last operation was enqueued, and throws Error if the communicator has failed since (a
  /// peer died, a link went down).
  void settle() const;
  /// Throws Error if the communicator has failed. Does not wait.
  void check() const;

 private:
  /// What NCCL says of the communicator now; throws Error unless it is well or in progress.
  ncclResult_t state() const;

  ncclComm_t comm_ = nullptr;
  std::string name_;
  std::chrono::seconds deadline_;
  int rank_ = 0, size_ = 1;
};

}  // namespace moerun
