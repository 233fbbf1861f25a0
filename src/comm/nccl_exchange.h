#pragma once
#include <cuda_runtime_api.h>

#include <string>
#include <vector>

#include "comm/nccl_comm.h"
#include "moerun/comm.h"

namespace moerun {

/// ExpertExchange over NCCL by all-gather: every rank gets every token of the step, padded to the largest
/// share, computes its experts' part of it, and sends the partial sums back by all-to-all. No count crosses
/// to the host, so it can be recorded in graphs; it moves ranks/(ranks that hold an expert) times more than a
/// one-sided exchange would, which is little for 4 ranks or fewer. Thread contract: the engine thread.
class NcclExchange : public ExpertExchange {
 public:
  struct Options {
    std::vector<int32_t>
        rank_of;             ///< [num_experts]; each rank holds one aligned subtree (one_subtree_a_rank)
    int32_t max_tokens = 0;  ///< a rank may bring in one step
    int32_t hidden = 0, num_experts_per_tok = 0;
  };
  NcclExchange(const NcclComm& comm, Device& device, cudaStream_t stream, const Options& options);

  void begin_step(const std::vector<int32_t>& tokens_of_rank) override;
  Routed dispatch(const Routed& tokens) override;
  Tensor partials() override { return partials_.first(comm_.size() * step_tokens_); }
  Ints partial_offsets() override { return {}; }
  void combine(Tensor out) override;
  std::string name() const override { return "nccl"; }

 private:
  /// Copies this rank's rows into its place of `all` and gathers everyone's; rows beyond the tokens become
  /// `filler` bytes.
  void gather(const void* own, size_t row_bytes, int64_t rows, void* all, int filler);

  const NcclComm& comm_;
  cudaStream_t stream_;
  Options options_;
  int32_t* rank_of_;
  Tensor tokens_, weights_, partials_, returned_;  ///< [ranks · max_tokens, ...]
  Ints ids_;
  Ints own_ids_;
  int64_t own_tokens_ = 0, step_tokens_ = 0;
};

}  // namespace moerun
