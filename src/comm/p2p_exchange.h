#pragma once
#include <cuda_runtime_api.h>
#include <mpi.h>

#include <chrono>
#include <memory>
#include <string>
#include <vector>

#include "comm/exchange_options.h"
#include "device/cuda/cuda_memory.h"
#include "kernels/cuda/p2p_exchange.h"
#include "moerun/comm.h"

namespace moerun {

/// Other ranks' GPU memory, opened here through CUDA IPC. Thread contract: the engine thread.
class PeerMemory {
 public:
  /// `own` lies in the device's one allocation; every rank's is opened at every other. Collective over
  /// `engine`. Throws Error.
  PeerMemory(MPI_Comm engine, Device& device, char* own);
  ~PeerMemory();
  PeerMemory(const PeerMemory&) = delete;
  PeerMemory& operator=(const PeerMemory&) = delete;
  /// Each rank's `own`, as addresses here. [ranks]
  const std::vector<char*>& addresses() const { return addresses_; }

 private:
  std::vector<void*> opened_;
  std::vector<char*> addresses_;
};

/// ExpertExchange by one-sided kernels between GPUs that can address each other: the ranks of one node,
/// through CUDA IPC (also of one GPU, for testing). Takes every expert map, and copies. No host wait; can be
/// recorded in graphs. Thread contract: the engine thread.
class P2pExchange : public ExpertExchange {
 public:
  /// A wait for a peer that lasts longer ends the job. The watchdog notices sooner when a process is gone or
  /// stopped; this is for what it cannot see.
  static constexpr std::chrono::nanoseconds kDeadline = std::chrono::seconds(30);

  /// `device` must outlive it. Collective over `engine`. Throws Error when the ranks are not all on one node
  /// or a peer's memory cannot be opened.
  P2pExchange(MPI_Comm engine, Device& device, const ExchangeOptions& options,
              std::chrono::nanoseconds deadline = kDeadline);
  /// Graphs that were recorded with it hold addresses of its peers' memory.
  ~P2pExchange() override { device_.forget_recorded(); }

  void begin_step(const std::vector<int32_t>& tokens_of_rank) override;
  Dispatched dispatch(const Routed& tokens, Tensor sums) override;
  void combine(Tensor sums) override;
  std::string name() const override { return "p2p"; }
  bool capturable() const override { return true; }
  double seconds() const override;
  std::string fault() const override;

 private:
  int rank_ = 0, ranks_ = 1;
  Device& device_;
  cudaStream_t stream_;
  P2pArgs args_;
  char* window_ = nullptr;
  int32_t* every_slot_ = nullptr;
  PinnedBuffer fault_;
  std::unique_ptr<PeerMemory> peers_;
  Tensor partials_;
  Routed own_;  ///< this rank's tokens of the current layer
  int32_t step_tokens_ = 0;
};

}  // namespace moerun
