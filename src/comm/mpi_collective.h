#pragma once
#include <mpi.h>

#include "comm/host_side.h"
#include "fault/progress.h"
#include "moerun/comm.h"

namespace moerun {

/// Collective over MPI: host memory in place, other memory through a copy on the host. Waits on the host, so
/// it cannot be recorded in a graph. Thread contract: the engine thread.
class MpiCollective : public Collective {
 public:
  /// `max_bytes`: the largest `in` of reduce_scatter and all_to_all, and the largest `out` of all_gather.
  /// `comm` and `progress` (may be null) must outlive it.
  MpiCollective(MPI_Comm comm, Device& device, size_t max_bytes, Progress* progress = nullptr);

  int rank() const override { return rank_; }
  int size() const override { return size_; }
  void all_gather(Tensor in, Tensor out) override;
  /// Moves blocks and adds them by Device::tree_sum: MPI's own reductions choose their order by size and
  /// topology, which would break invariant 1.
  void reduce_scatter(Tensor in, Tensor out) override;
  void all_to_all(Tensor in, Tensor out) override;
  double seconds() const override { return seconds_; }

 private:
  MPI_Comm comm_;
  Device& device_;
  Progress* progress_;
  int rank_ = 0, size_ = 1;
  HostSide in_, out_;
  void* shards_ = nullptr;  // device memory, max_bytes
  size_t max_bytes_;
  double seconds_ = 0;
};

/// Collective of one rank: copies.
class LocalCollective : public Collective {
 public:
  explicit LocalCollective(Device& device) : device_(device) {}
  int rank() const override { return 0; }
  int size() const override { return 1; }
  bool capturable() const override { return true; }
  void all_gather(Tensor in, Tensor out) override { copy(in, out); }
  void reduce_scatter(Tensor in, Tensor out) override { copy(in, out); }
  void all_to_all(Tensor in, Tensor out) override { copy(in, out); }
  double seconds() const override { return 0; }

 private:
  void copy(const Tensor& in, const Tensor& out) {
    if (in.data != out.data && in.rows > 0) device_.tree_sum(in, 1, out);
  }
  Device& device_;
};

}  // namespace moerun
