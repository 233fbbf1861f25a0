#include "comm/nccl_collective.h"

#include <fmt/format.h>

#include "device/cuda/cuda_check.h"
#include "device/cuda_device.h"
#include "moerun/error.h"

namespace moerun {

NcclCollective::NcclCollective(MPI_Comm tp, Device& device, size_t scratch_bytes)
    : comm_(tp, "tp"),
      device_(device),
      stream_(static_cast<cudaStream_t>(cuda_stream(device))),
      stopwatch_(static_cast<Stopwatch*>(device.allocate(sizeof(Stopwatch), "tp exchange"))),
      scratch_(device.allocate(scratch_bytes, "tp exchange")),
      scratch_bytes_(scratch_bytes) {
  CUDA_CHECK(cudaMemsetAsync(stopwatch_, 0, sizeof(Stopwatch), stream_));
}

void NcclCollective::all_gather(Tensor in, Tensor out) {
  launch_stopwatch_start(stopwatch_, stream_);
  NCCL_CHECK(ncclAllGather(in.data, out.data, in.bytes(), ncclInt8, comm_, stream_));
  comm_.settle();
  launch_stopwatch_stop(stopwatch_, stream_);
}

void NcclCollective::all_to_all(Tensor in, Tensor out) {
  const size_t block = in.bytes() / static_cast<size_t>(size());
  launch_stopwatch_start(stopwatch_, stream_);
  NCCL_CHECK(ncclGroupStart());
  for (int peer = 0; peer < size(); ++peer) {
    const size_t at = static_cast<size_t>(peer) * block;
    NCCL_CHECK(ncclSend(static_cast<const char*>(in.data) + at, block, ncclInt8, peer, comm_, stream_));
    NCCL_CHECK(ncclRecv(static_cast<char*>(out.data) + at, block, ncclInt8, peer, comm_, stream_));
  }
  NCCL_CHECK(ncclGroupEnd());
  comm_.settle();
  launch_stopwatch_stop(stopwatch_, stream_);
}

void NcclCollective::reduce_scatter(Tensor in, Tensor out) {
  if (in.bytes() > scratch_bytes_)
    throw Error(fmt::format("reduce_scatter of {} bytes, {} were set aside", in.bytes(), scratch_bytes_));
  const Tensor shards{scratch_, in.dtype, in.rows, in.cols};
  all_to_all(in, shards);
  device_.tree_sum(shards, size(), out);
}

double NcclCollective::seconds() const {
  Stopwatch stopwatch;
  device_.copy_to_host(&stopwatch, stopwatch_, sizeof stopwatch);
  return static_cast<double>(stopwatch.total) * 1e-9;
}

}  // namespace moerun
