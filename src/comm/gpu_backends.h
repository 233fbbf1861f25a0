#pragma once
#include <mpi.h>

#include <cstddef>
#include <memory>
#include <string>

#include "comm/exchange_options.h"
#include "comm/exchange_table.h"
#include "fault/progress.h"
#include "moerun/comm.h"

namespace moerun {

// This header names no CUDA or NCCL type: host code includes it. What it declares exists in builds with
// CUDA=1. Thread contract: the engine thread, which has chosen its device.

/// Collective over `engine`. Throws Error.
EngineLinks gpu_links(MPI_Comm engine);

/// Whether the NCCL that was loaded takes two ranks on one GPU in this process's environment.
bool nccl_takes_shared_gpus();

/// Collective over their communicator. `device` and `progress` must outlive what they make. Throw Error.
std::unique_ptr<Collective> make_nccl_collective(MPI_Comm tp, Device& device, size_t scratch_bytes);
std::unique_ptr<ExpertExchange> make_nccl_exchange(MPI_Comm engine, Device& device,
                                                   const ExchangeOptions& options, Progress* progress);
std::unique_ptr<ExpertExchange> make_p2p_exchange(MPI_Comm engine, Device& device,
                                                  const ExchangeOptions& options);

}  // namespace moerun
