#pragma once
#include <mpi.h>

#include <cstddef>
#include <string>
#include <utility>
#include <vector>

#include "comm/host_side.h"
#include "fault/progress.h"
#include "layout/topology.h"
#include "moerun/comm.h"
#include "moerun/expert_tree.h"

namespace moerun {

/// ExpertExchange over MPI messages between hosts' memories. Works for every expert map, with and without
/// copies of experts.
///
/// dispatch: one message from each rank that has tokens to each other rank: the tokens that have an expert
/// there, as rows [n, hidden], then all their expert ids [n, k] (`elsewhere(id)` where another rank computes
/// it), then weights [n, k]. A receiver knows the largest that may come from begin_step, so no counts travel;
/// and the sender alone decides which copy of an expert computes it. combine: one message back with the
/// partial sums, whose number both sides know from the ids (cut_into_spans). A rank's own tokens stay out of
/// MPI.
///
/// Waits on the host, so it cannot be recorded in a graph. Thread contract: the engine thread.
class MpiExchange : public ExpertExchange {
 public:
  struct Options {
    int32_t max_tokens = 0;  ///< a rank may bring in one step
    int32_t hidden = 0, num_experts_per_tok = 0;
    Progress* progress = nullptr;
  };
  /// `ep`, `map` and `device` must outlive it. Buffers are made here, for the largest step.
  MpiExchange(MPI_Comm ep, const ExpertMap& map, Device& device, const Options& options);

  void begin_step(const std::vector<int32_t>& tokens_of_rank) override;
  Dispatched dispatch(const Routed& tokens, Tensor sums) override;
  void combine(Tensor sums) override;
  std::string name() const override { return "mpi"; }

 private:
  struct HostTokens {
    const char* x;
    const int32_t* ids;
    const float* weights;
  };
  /// A partial sum of an own token.
  struct OwnSpan {
    int32_t first_id, last_id;  // smallest and largest of its experts
    int32_t rank;               // that computes it
  };
  struct Waiter {
    char* row;
    int32_t level;  // at which it meets the one below it
  };

  size_t rows_here() const;      // that can arrive
  size_t partials_here() const;  // that can be wanted for them
  size_t message_bytes(size_t n) const { return n * (row_bytes_ + 8 * k_); }

  /// Which rank computes each pair of the own tokens, into own_ranks_.
  void choose_ranks(const Routed& tokens, const int32_t* ids);
  /// Puts one token's pairs in sorted_ into ascending order, and the subtrees that its sum consists of into
  /// cut_.
  void cut_token();
  /// How many partial sums are wanted here for a token that arrived with these ids.
  int32_t count_partials(const int32_t* ids);
  /// Remembers the own tokens' spans, and lists for each rank which tokens go there.
  void plan_own_tokens(const int32_t* ids, int64_t n);
  /// The tokens that go to `rank`, as it gets them; the pointers need not be aligned.
  void pack(const HostTokens& own, int rank, char* x, char* ids, char* weights);
  /// Puts what arrived, count[r] tokens from rank r, into one batch.
  Dispatched arrange(const HostTokens& own, const std::vector<size_t>& count);
  /// Adds one own token's partial sums along the tree; their rows are overwritten.
  void add_spans(size_t token, void* out);
  MPI_Request* new_request();
  void wait_all();

  MPI_Comm ep_;
  const ExpertMap& map_;
  Device& device_;
  Options options_;
  int rank_ = 0, ranks_ = 1;
  size_t k_, row_bytes_;
  std::vector<int32_t> max_partials_;    // [ranks] a token can have there
  std::vector<int32_t> tokens_of_rank_;  // [ranks] in this step

  // This rank's own tokens.
  std::vector<int32_t> own_ranks_;           // [own tokens · k] that compute the pairs
  std::vector<OwnSpan> spans_;               // token by token, ascending
  std::vector<size_t> span_begin_;           // [own tokens + 1]
  std::vector<std::vector<int32_t>> to_;     // [ranks] own tokens that go there, ascending
  std::vector<size_t> expected_;             // [ranks] partial sums that come back
  std::vector<std::vector<char>> outbox_;    // [ranks] packed tokens
  std::vector<std::vector<char>> returned_;  // [ranks] partial sums of own tokens
  std::vector<char*> next_;                  // [ranks] the row of returned_ to add next

  // What arrives here: rows from rank 0, then rank 1, …; own rows at this rank's place.
  std::vector<std::vector<char>> inbox_;  // [ranks]
  std::vector<size_t> arrived_begin_;     // [ranks + 1] rows
  std::vector<size_t> partials_begin_;    // [ranks + 1] rows of partials_
  Routed arrived_;                        // device memory, [rows_here, …]
  Tensor partials_;                       // device memory, [partials_here, hidden]
  Ints offsets_;                          // device memory, [rows_here + 1]

  HostSide x_in_, ids_in_, weights_in_;
  HostSide x_out_, ids_out_, weights_out_, offsets_out_, partials_out_, result_;

  std::vector<std::pair<int32_t, int32_t>> sorted_;  // [k] one token's expert ids, and who computes them
  std::vector<int32_t> sorted_id_, sorted_rank_;     // [k] the same apart
  std::vector<int32_t> ids_;                         // [k] one token's, as another rank gets them
  std::vector<ExpertSpan> cut_;
  std::vector<Waiter> stack_;
  std::vector<int> sources_;
  std::vector<MPI_Request> requests_;
  std::vector<MPI_Status> statuses_;
};

/// The exchange of an engine of one rank: nothing moves.
class LocalExchange : public ExpertExchange {
 public:
  void begin_step(const std::vector<int32_t>& tokens_of_rank) override { (void)tokens_of_rank; }
  Dispatched dispatch(const Routed& tokens, Tensor sums) override {
    return {.tokens = tokens, .partials = sums, .local = true};
  }
  void combine(Tensor sums) override { (void)sums; }
  std::string name() const override { return "local"; }
  double seconds() const override { return 0; }
  bool capturable() const override { return true; }
};

}  // namespace moerun
