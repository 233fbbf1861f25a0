#pragma once
#include <cstdint>
#include <deque>
#include <limits>
#include <list>
#include <optional>
#include <span>
#include <vector>

#include "engine/branch_scores.h"
#include "engine/kv_cache.h"
#include "engine/prefix_cache.h"
#include "engine/prompt_pacing.h"
#include "engine/room_forecast.h"
#include "engine/routed_store.h"
#include "engine/sequence.h"
#include "moerun/plan.h"

namespace moerun {

struct SchedulerOptions {
  int32_t max_num_seqs = 0;  ///< in one step
  /// So many run of which it is not known how long their answers will be. Beyond them, and where max_tokens
  /// alone ends answers, a sequence is admitted only when the cache will have room for it, and for all that
  /// run, until they end. max_num_seqs: so many run whatever their lengths.
  int32_t num_seqs_of_any_length = std::numeric_limits<int32_t>::max();
  int32_t max_num_batched_tokens = 0;  ///< in one step
  int32_t block_size = 64;
  int64_t num_blocks = 0;
  int64_t num_host_blocks = 0;  ///< that keep keys and values of preempted sequences
  /// Of models with gated delta nets (moerun/delta_net.h).
  struct States {
    int32_t chunk = 0;  ///< a prompt's steps end at multiples of it; 0: the model has no such layers
    int64_t num_slots = 0, num_host_slots = 0;  ///< max_num_seqs of the first run, the others are kept
  };
  States states;
  AnswerLimits limits;
  bool share_prefixes = true;  ///< prompts that begin alike share keys and values
  RoutedShape routed;          ///< what answers say of the experts of their tokens
};

/// Continuous batching with chunked prefill over paged keys and values, for one data-parallel group.
///
/// Each step takes what fits of the running sequences in the order in which they were admitted (one token of
/// those that decode, a chunk of those that prefill), then admits waiting ones. When blocks run out the
/// youngest running sequence is preempted: its keys and values move to the host and come back later; where
/// the host has no room either it is computed again, by the same path (moerun/plan.h), so that its answer
/// keeps its bits.
///
/// A prompt that begins as another does takes over the keys and values of what they have in common, and waits
/// for them where they are just being computed: the same bits, whoever computed them. A row that asks for
/// several answers computes its prompt as one sequence; the step of the prompt's last token draws the first
/// token of each, and from there they are sequences of their own, which take the prompt over. Thread
/// contract: the leader's engine thread.
class Scheduler {
 public:
  explicit Scheduler(const SchedulerOptions& options);

  void add(Sequence sequence);
  /// Rows that will still be added, as far as is known: a long job starts its sequences one by one
  /// (prompt_pacing.h).
  void set_rows_left(uint64_t rows) { rows_left_ = rows; }
  /// The next step; without tokens when there is nothing to do.
  StepPlan schedule();
  /// Makes the masks of the step that was scheduled last: what each of its rows that has one can choose.
  void fill_masks(StepPlan& plan);
  /// Takes the experts that the step's tokens were routed to [plan.num_tokens()] of RoutedShape, where
  /// `routed` is kept. Before postprocess.
  void take_routed(const StepPlan& plan, std::span<const uint8_t> routed) {
    if (routed_) routed_->apply(plan, routed);
  }
  /// What the step's logit rows gave, in the plan's order. Returns the answers that are finished.
  std::vector<RowResult> postprocess(const StepPlan& plan, const std::vector<TokenResult>& results);
  /// Forgets the sequences that have not begun (a stop was asked for); they are answered by a later run.
  void drop_waiting();
  /// Forgets all.
  void drop_all();

  const SchedulerOptions& options() const { return options_; }
  /// Answers that are to begin.
  int64_t num_waiting() const;
  int64_t num_running() const { return static_cast<int64_t>(running_.size()); }
  bool idle() const { return waiting_.empty() && running_.empty(); }
  const KvCache& cache() const { return cache_; }
  int64_t num_preemptions() const { return num_preemptions_; }
  /// Preemptions whose keys and values were kept in the host's memory.
  int64_t num_swaps() const { return num_swaps_; }
  int64_t max_blocks_used() const { return max_blocks_used_; }
  /// Prompt tokens that were taken over instead of computed.
  int64_t num_shared_tokens() const { return num_shared_tokens_; }

 private:
  /// A running sequence and what it does in the step at hand.
  struct Running {
    Sequence sequence;
    int32_t num_scheduled = 0;
    size_t place = 0;  ///< among the plan's sequences, when something is scheduled
  };

  void schedule_running();
  void admit();
  /// Whether a waiting prompt should wait for another that computes what both begin with; else what it may
  /// take over now.
  bool defers(Sequence& next, PrefixCache::Match& match);
  enum class Admission { admitted, deferred, no_room };
  /// Lets the waiting sequence in, if there is room, and schedules what fits of it.
  Admission admit(Sequence& next);
  /// Tokens of a prompt of which `from` are computed, at most `room`, that end where a step may end.
  int32_t prefill_tokens(const Sequence& sequence, int32_t from, int32_t room) const;
  /// The states that the step leaves behind for other sequences: StepPlan::state_saves.
  std::vector<int32_t> state_saves(std::span<const Scheduled> step);
  /// The sequence holds nothing of the cache any more, and begins anew.
  void release(Sequence& sequence);
  /// Shares with a sequence that holds nothing what was found for it.
  void take_over(Sequence& next, const PrefixCache::Match& match);
  /// Takes from the waiting sequences but one what preempted ones still hold of the cache; true when there
  /// was any. They are computed again.
  bool make_waiting_let_go(const Sequence& but);
  /// Makes `blocks` blocks free, by letting go of prompts that are only kept; of those but `but`, which were
  /// used last.
  bool make_free(int64_t blocks, size_t but = 0);
  /// Whether num_seqs_of_any_length, or else the forecast, lets a sequence in that takes over `shared`
  /// tokens.
  bool will_have_room(const Sequence& next, int32_t shared);
  /// Makes room for `tokens` tokens of a sequence; preempts younger ones that are not scheduled yet. False
  /// when it had to preempt the sequence itself.
  bool make_room(std::list<Running>::iterator at, int32_t tokens);
  void preempt(std::list<Running>::iterator at);
  /// What a step that computed `num_computed` tokens of the sequence gave, by its logit rows; true when the
  /// sequence has ended.
  bool take(Sequence& sequence, int32_t num_computed, std::span<const LogitRow> rows,
            const TokenResult* results, std::vector<RowResult>& finished);
  /// The row's other answers, each with its first token, which was drawn like `row` of the sequence.
  void fork(Sequence& sequence, const LogitRow& row, const TokenResult* results,
            std::vector<RowResult>& finished);
  void finish(Sequence& sequence, std::vector<RowResult>& finished);
  /// Tells a sequence that has ended, and holds its blocks still, the experts of its tokens.
  void set_routed(Sequence& sequence) const;
  /// What became of one of the sequence's logit rows; true when the sequence has ended.
  bool take(Sequence& sequence, const LogitRow& row, const TokenResult& result) const;

  SchedulerOptions options_;
  KvCache cache_;
  std::optional<RoutedStore> routed_;
  StateSlots states_;
  PrefixCache prefixes_;
  BranchScores branch_scores_;
  RoomForecast forecast_;
  std::deque<Sequence> waiting_;
  std::list<Running> running_;  // in the order of admission
  int32_t budget_ = 0;          // tokens left in the step at hand
  int32_t prompt_budget_ = 0;   // of them of prompts
  PromptPacing pacing_;
  uint64_t rows_left_ = 0;
  int64_t num_preemptions_ = 0, num_swaps_ = 0, max_blocks_used_ = 0, num_shared_tokens_ = 0;
};

}  // namespace moerun
