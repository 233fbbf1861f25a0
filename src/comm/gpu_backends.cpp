#include "comm/gpu_backends.h"

#include <cuda_runtime_api.h>

#include <cstdlib>
#include <cstring>
#include <set>
#include <string_view>

#include "comm/exchange_choice.h"
#include "comm/mpi_env.h"
#include "comm/nccl_collective.h"
#include "comm/nccl_exchange.h"
#include "comm/p2p_exchange.h"
#include "device/cuda/cuda_check.h"

namespace moerun {

namespace {

/// Whether this process's GPU can address the GPU of that name. Asking makes no context there.
bool reaches(const cudaUUID_t& uuid, int own) {
  int count = 0;
  CUDA_CHECK(cudaGetDeviceCount(&count));
  for (int other = 0; other < count; ++other) {
    cudaDeviceProp properties{};
    CUDA_CHECK(cudaGetDeviceProperties(&properties, other));
    if (std::memcmp(&properties.uuid, &uuid, sizeof uuid) != 0) continue;
    if (other == own) return true;
    int can = 0;
    CUDA_CHECK(cudaDeviceCanAccessPeer(&can, own, other));
    return can != 0;
  }
  return false;  // hidden from this process
}

}  // namespace

EngineLinks gpu_links(MPI_Comm engine) {
  int own = 0, ranks = 1, rank = 0, on_this_node = 0;
  CUDA_CHECK(cudaGetDevice(&own));
  MPI_CHECK(MPI_Comm_size(engine, &ranks));
  MPI_CHECK(MPI_Comm_rank(engine, &rank));
  MPI_Comm node = MPI_COMM_NULL;
  MPI_CHECK(MPI_Comm_split_type(engine, MPI_COMM_TYPE_SHARED, rank, MPI_INFO_NULL, &node));
  on_this_node = Communicator(node).size();

  cudaDeviceProp properties{};
  CUDA_CHECK(cudaGetDeviceProperties(&properties, own));
  std::vector<cudaUUID_t> uuids(static_cast<size_t>(ranks));
  MPI_CHECK(MPI_Allgather(&properties.uuid, sizeof properties.uuid, MPI_BYTE, uuids.data(),
                          sizeof properties.uuid, MPI_BYTE, engine));
  // One node; every GPU can be addressed; NCCL takes ranks that share one.
  int flags[3] = {on_this_node == ranks, 1, nccl_takes_shared_gpus()};
  std::set<std::string_view> distinct;
  for (const cudaUUID_t& uuid : uuids) {
    distinct.insert({uuid.bytes, sizeof uuid.bytes});
    flags[1] &= flags[0] && reaches(uuid, own);
  }
  MPI_CHECK(MPI_Allreduce(MPI_IN_PLACE, flags, 3, MPI_INT, MPI_MIN, engine));
  const bool shared = distinct.size() < uuids.size();
  return {.shared = shared,
          .nccl = !shared || flags[2] != 0,
          .one_node = flags[0] != 0,
          .peer_access = flags[1] != 0};
}

bool nccl_takes_shared_gpus() {
  int version = 0;
  NCCL_CHECK(ncclGetVersion(&version));
  return nccl_takes_shared_gpus(version, std::getenv("NCCL_MULTI_RANK_GPU_ENABLE"));
}

std::unique_ptr<Collective> make_nccl_collective(MPI_Comm tp, Device& device, size_t scratch_bytes) {
  return std::make_unique<NcclCollective>(tp, device, scratch_bytes);
}

std::unique_ptr<ExpertExchange> make_nccl_exchange(MPI_Comm engine, Device& device,
                                                   const ExchangeOptions& options, Progress* progress) {
  return std::make_unique<NcclExchange>(engine, device, options, progress, NcclExchange::Choice{});
}

std::unique_ptr<ExpertExchange> make_p2p_exchange(MPI_Comm engine, Device& device,
                                                  const ExchangeOptions& options) {
  return std::make_unique<P2pExchange>(engine, device, options);
}

}  // namespace moerun
