#pragma once
#include <cuda_runtime_api.h>
#include <mpi.h>

#include "comm/nccl_comm.h"
#include "kernels/cuda/stopwatch.h"
#include "moerun/comm.h"

namespace moerun {

/// Collective over NCCL, on the device's stream and capturable in its graphs. The reduce-scatter moves blocks
/// and adds them by Device::tree_sum: NCCL's own reductions choose their order by topology and size, which
/// would break invariant 1. Thread contract: the engine thread.
class NcclCollective : public Collective {
 public:
  /// `scratch_bytes`: the largest `in` of reduce_scatter. `device` must outlive it. Collective over `tp`.
  NcclCollective(MPI_Comm tp, Device& device, size_t scratch_bytes);
  ~NcclCollective() override { device_.forget_recorded(); }

  int rank() const override { return comm_.rank(); }
  int size() const override { return comm_.size(); }
  bool capturable() const override { return true; }
  void all_gather(Tensor in, Tensor out) override;
  void reduce_scatter(Tensor in, Tensor out) override;
  void all_to_all(Tensor in, Tensor out) override;
  double seconds() const override;
  void check() const override { comm_.check(); }

 private:
  NcclComm comm_;
  Device& device_;
  cudaStream_t stream_;
  Stopwatch* stopwatch_;
  void* scratch_;
  size_t scratch_bytes_;
};

}  // namespace moerun
