#pragma once
#include <cuda_runtime_api.h>

#include "comm/nccl_comm.h"
#include "moerun/comm.h"

namespace moerun {

/// Collective over NCCL, on the device's stream and capturable in its graphs. The reduce-scatter moves blocks
/// and adds them by Device::tree_sum: NCCL's own reductions choose their order by topology and size, which
/// would break invariant 1.
class NcclCollective : public Collective {
 public:
  /// `scratch_bytes`: the largest `in` of reduce_scatter.
  NcclCollective(const NcclComm& comm, Device& device, cudaStream_t stream, size_t scratch_bytes);

  int rank() const override { return comm_.rank(); }
  int size() const override { return comm_.size(); }
  void all_gather(Tensor in, Tensor out) override;
  void reduce_scatter(Tensor in, Tensor out) override;
  void all_to_all(Tensor in, Tensor out) override;

 private:
  const NcclComm& comm_;
  Device& device_;
  cudaStream_t stream_;
  void* scratch_;
  size_t scratch_bytes_;
};

}  // namespace moerun
