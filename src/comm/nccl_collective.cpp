#include "comm/nccl_collective.h"

#include <fmt/format.h>

#include "moerun/error.h"

namespace moerun {

NcclCollective::NcclCollective(const NcclComm& comm, Device& device, cudaStream_t stream,
                               size_t scratch_bytes)
    : comm_(comm),
      device_(device),
      stream_(stream),
      scratch_(comm.size() > 1 ? device.allocate(scratch_bytes, "tp exchange") : nullptr),
      scratch_bytes_(scratch_bytes) {}

void NcclCollective::all_gather(Tensor in, Tensor out) {
  NCCL_CHECK(ncclAllGather(in.data, out.data, in.bytes(), ncclInt8, comm_, stream_));
  comm_.settle();
}

void NcclCollective::all_to_all(Tensor in, Tensor out) {
  const size_t block = in.bytes() / static_cast<size_t>(size());
  NCCL_CHECK(ncclGroupStart());
  for (int peer = 0; peer < size(); ++peer) {
    const size_t at = static_cast<size_t>(peer) * block;
    NCCL_CHECK(ncclSend(static_cast<const char*>(in.data) + at, block, ncclInt8, peer, comm_, stream_));
    NCCL_CHECK(ncclRecv(static_cast<char*>(out.data) + at, block, ncclInt8, peer, comm_, stream_));
  }
  NCCL_CHECK(ncclGroupEnd());
  comm_.settle();
}

void NcclCollective::reduce_scatter(Tensor in, Tensor out) {
  if (in.bytes() > scratch_bytes_ && size() > 1)
    throw Error(fmt::format("reduce_scatter of {} bytes, {} were set aside", in.bytes(), scratch_bytes_));
  const Tensor shards{size() > 1 ? scratch_ : in.data, in.dtype, in.rows, in.cols};
  if (size() > 1) all_to_all(in, shards);
  device_.tree_sum(shards, size(), out);
}

}  // namespace moerun
