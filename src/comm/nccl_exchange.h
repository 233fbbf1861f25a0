#pragma once
#include <cuda_runtime_api.h>
#include <mpi.h>

#include <string>
#include <vector>

#include "comm/exchange_options.h"
#include "comm/nccl_comm.h"
#include "comm/token_lists.h"
#include "device/cuda/cuda_memory.h"
#include "fault/progress.h"
#include "kernels/cuda/stopwatch.h"
#include "moerun/comm.h"

namespace moerun {

/// ExpertExchange over NCCL, in one of two ways that every rank picks alike from the step's agreement:
///
/// all-gather: every rank gets every token of the step, padded to the largest share, computes its experts'
/// part of it, and sends the partial sums back by all-to-all. No count crosses to the host, so it can be
/// recorded in graphs; it moves ranks / (ranks that hold an expert of a token) times more than needed, which
/// is little for 4 ranks or fewer.
///
/// counts: the host reads the routing, the ranks tell each other their counts over MPI, and each token
/// travels once to each rank that holds one of its experts, by grouped send and receive. For large steps of
/// many ranks; waits on the host.
///
/// Thread contract: the engine thread.
class NcclExchange : public ExpertExchange {
 public:
  /// Which steps go by counts.
  struct Choice {
    int32_t min_ranks = 5, min_tokens = 1024;  ///< of the step's largest share
  };
  /// `device` and `progress` (may be null) must outlive it. Collective over `engine`. Throws Error unless
  /// each rank holds one aligned subtree of experts (one_subtree_a_rank).
  NcclExchange(MPI_Comm engine, Device& device, const ExchangeOptions& options, Progress* progress,
               Choice choice);

  ~NcclExchange() override { device_.forget_recorded(); }

  void begin_step(const std::vector<int32_t>& tokens_of_rank) override;
  Dispatched dispatch(const Routed& tokens, Tensor sums) override;
  void combine(Tensor sums) override;
  std::string name() const override { return "nccl"; }
  bool capturable() const override { return !by_counts_; }
  double seconds() const override;
  void check() const override { comm_.check(); }

 private:
  int64_t rows_here() const { return by_counts_ ? received_ : comm_.size() * step_tokens_; }
  void gather_all(const Routed& tokens);
  /// Copies this rank's rows into its place of `all` and gathers everyone's; rows beyond the tokens become
  /// `filler` bytes.
  void gather(const void* own, size_t row_bytes, int64_t rows, void* all, int filler);
  void send_by_counts(const Routed& tokens);
  /// Exchanges rows [of `count`] with every rank: those for rank r follow those for rank r − 1.
  void swap_rows(const void* out, const std::vector<int32_t>& out_count, void* in,
                 const std::vector<int32_t>& in_count, size_t row_bytes);

  MPI_Comm engine_;
  NcclComm comm_;
  Device& device_;
  cudaStream_t stream_;
  ExchangeOptions options_;
  Progress* progress_;
  Choice choice_;
  Stopwatch* stopwatch_;
  int32_t* rank_of_;
  Tensor tokens_, weights_, partials_, returned_;  ///< [ranks · max_tokens, ...]
  Ints ids_;
  Ints own_ids_;
  int64_t own_tokens_ = 0, step_tokens_ = 0;
  bool by_counts_ = false;

  // By counts alone; without them, empty.
  Tensor sent_;  ///< [most rows that leave, hidden]; ids and weights leave from here too
  int32_t *token_index_ = nullptr, *row_of_ = nullptr;  ///< [most rows that leave], [ranks · max_tokens]
  TokenLists lists_;
  std::vector<int32_t> host_ids_, in_count_;
  int64_t received_ = 0;
};

}  // namespace moerun
