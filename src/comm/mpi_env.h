#pragma once
#include <mpi.h>

#include <cstddef>
#include <string>
#include <vector>

#include "fault/progress.h"
#include "layout/topology.h"

namespace moerun {

/// Throws Error with MPI's words, file and line unless `status` is MPI_SUCCESS.
void mpi_check(int status, const char* call, const char* file, int line);
#define MPI_CHECK(call) ::moerun::mpi_check((call), #call, __FILE__, __LINE__)

/// `bytes` as MPI counts. Throws Error when an int does not hold it.
int byte_count(size_t bytes);

/// A communicator that is freed with its owner. Errors on it return instead of aborting.
class Communicator {
 public:
  Communicator() = default;
  explicit Communicator(MPI_Comm owned);
  ~Communicator();
  Communicator(Communicator&& other) noexcept;
  Communicator& operator=(Communicator&& other) noexcept;

  operator MPI_Comm() const { return comm_; }
  int rank() const { return rank_; }
  int size() const { return size_; }

 private:
  MPI_Comm comm_ = MPI_COMM_NULL;
  int rank_ = 0, size_ = 0;
};

/// MPI from start to end of the program. Started without a launcher, it is a world of one rank.
/// Thread contract: made and ended by the main thread; world() is the main thread's alone.
class MpiEnv {
 public:
  /// Throws Error when the library does not give MPI_THREAD_MULTIPLE.
  MpiEnv(int* argc, char*** argv);
  /// MPI_Finalize, unless the stack is being unwound by an error: then peers may be gone and would be waited
  /// for.
  ~MpiEnv();
  MpiEnv(const MpiEnv&) = delete;
  MpiEnv& operator=(const MpiEnv&) = delete;

  MPI_Comm world() const { return world_; }
  int rank() const { return world_.rank(); }
  int size() const { return world_.size(); }
  int local_rank() const { return local_rank_; }  ///< among the ranks of this node (shared memory)
  int local_size() const { return local_size_; }
  /// Host name of each rank. [size]
  const std::vector<std::string>& hosts() const { return hosts_; }
  const std::string& host() const { return hosts_[static_cast<size_t>(rank())]; }

  /// From here on, a rank that waits in collectives of this object, or in the making of Communicators, says
  /// so. `progress` must outlive it.
  void set_progress(Progress* progress) { progress_ = progress; }
  Progress* progress() const { return progress_; }  ///< may be null

  /// Every rank's text, in rank order. Collective over world.
  std::vector<std::string> all_gather(const std::string& mine) const;
  /// At rank 0 every rank's text, in rank order; elsewhere nothing. A text is at most 2 GiB, all of them may
  /// be more. Collective over world.
  std::vector<std::string> gather(const std::string& mine) const;
  /// Rank 0's text at every rank. Collective over world.
  std::string broadcast(const std::string& text) const;

 private:
  struct Session {  // outlives the communicators
    Session(int* argc, char*** argv);
    ~Session();
    int exceptions;  // in flight when MPI started
  } session_;
  Communicator world_;
  int local_rank_ = 0, local_size_ = 1;
  std::vector<std::string> hosts_;
  Progress* progress_ = nullptr;
};

/// The communicators of a job, made before any thread starts. Collective over world.
struct Communicators {
  Communicators(const MpiEnv& env, const Layout& layout);

  Communicator control;  ///< coordinator thread and group leaders alone
  Communicator ep;       ///< the engine: data × tensor ranks; the engine thread
  Communicator tp;       ///< tensor ranks of one data-parallel group; the engine thread
};

}  // namespace moerun
