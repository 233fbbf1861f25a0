#pragma once
#include <cuda_runtime_api.h>
#include <mpi.h>

#include <chrono>
#include <memory>
#include <string>
#include <vector>

#include "kernels/cuda/p2p_exchange.h"
#include "moerun/comm.h"

namespace moerun {

/// Whether the expert map gives each rank one aligned subtree of the tree over expert ids: then a token has
/// one partial sum a rank, and the upper levels of the tree are a tree over ranks.
bool one_subtree_a_rank(const std::vector<int32_t>& rank_of, int ranks);

/// ExpertExchange by one-sided kernels between GPUs that can address each other: the ranks of one node,
/// through CUDA IPC (also of one GPU, for testing). No host wait; can be recorded in graphs. Thread contract:
/// the engine thread.
class P2pExchange : public ExpertExchange {
 public:
  struct Options {
    std::vector<int32_t> rank_of;  ///< [num_experts]
    int32_t max_tokens = 0;        ///< a rank may bring in one step
    int32_t hidden = 0, num_experts_per_tok = 0;
    std::chrono::nanoseconds deadline = std::chrono::seconds(10);
  };
  /// Collective over `engine`. Throws Error when the ranks are not all on one node, a peer's memory cannot be
  /// opened, or the expert map does not give each rank one aligned subtree.
  P2pExchange(MPI_Comm engine, Device& device, cudaStream_t stream, const Options& options);
  ~P2pExchange() override;

  void begin_step(const std::vector<int32_t>& tokens_of_rank) override;
  Routed dispatch(const Routed& tokens) override;
  Tensor partials() override;
  Ints partial_offsets() override { return {}; }
  void combine(Tensor out) override;
  std::string name() const override { return "p2p"; }

  /// After a device fault: whether it was a wait of this exchange that gave up, and for whom ("" when not).
  std::string fault() const;

 private:
  int rank_ = 0, ranks_ = 1;
  cudaStream_t stream_;
  DType dtype_;
  P2pArgs args_;
  char* window_ = nullptr;
  std::vector<void*> opened_;  ///< peers' windows
  P2pFault* fault_ = nullptr;  ///< pinned
  Tensor partials_;
  Routed own_;  ///< this rank's tokens of the current layer
  int32_t step_tokens_ = 0;
};

}  // namespace moerun
