#pragma once
#include <mpi.h>

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "comm/agreement.h"
#include "engine/distinct_tokens.h"
#include "engine/grammar_queue.h"
#include "engine/leader_link.h"
#include "engine/preparer.h"
#include "engine/repeated_rows.h"
#include "engine/scheduler.h"
#include "engine/step_timeline.h"
#include "fault/progress.h"
#include "moerun/step_runner.h"

namespace moerun {

/// Steps of one kind: how many, and their time from plan to answers.
struct StepCount {
  int64_t steps = 0;
  double seconds = 0;
};

/// What one rank counted; a leader's counts of rows and tokens are its group's.
struct EngineStats {
  int64_t steps = 0, prompt_tokens = 0, output_tokens = 0;
  int64_t truncated_rows = 0,
          prompt_truncated = 0;  ///< prompts that lost their beginning; their tokens that went
  int64_t repeated_rows = 0;     ///< that were answered as a row was with the same ids and sampling
  int64_t prompt_distinct = -1;  ///< tokens of a trie over the group's prompts; −1: not counted
  int64_t preemptions = 0, swaps = 0, max_blocks_used = 0, num_blocks = 0;
  double forward_s = 0, agree_s = 0, idle_s = 0;  ///< in the model, in the agreement, without work anywhere
  /// A leader's own work: making plans and taking results in, while the device waits; rows and answers, while
  /// it computes.
  double plan_s = 0, answer_s = 0, talk_s = 0;
  double mask_s = 0;  ///< a leader's: saying which tokens rows can choose, while the device computes
  StepCount full_decode_steps;  ///< a leader's: steps of max_num_seqs tokens and no prompt (a job that gives
                                ///< the number)
  double first_step_s = 0;      ///< from the loop's begin until the first step had ended
};

/// What a data-parallel group's leader has beside its engine.
struct LeaderParts {
  std::unique_ptr<LeaderLink> link;
  std::unique_ptr<Preparer> preparer;
  std::unique_ptr<Scheduler> scheduler;
  std::unique_ptr<GrammarQueue> grammars;  ///< null where there is no tokenizer
};

/// One rank's loop: schedule → agree → submit → (rows and answers come and go) → collect → postprocess, until
/// every group of the engine has nothing left and nothing to expect, and then stops at that step. Thread
/// contract: the rank's main thread.
class Engine {
 public:
  struct Parts {
    StepRunner* runner = nullptr;
    StepAgreement* agreement = nullptr;
    MPI_Comm tp = MPI_COMM_NULL;
    Progress* progress = nullptr;
    LeaderParts* leader = nullptr;  ///< null on ranks that lead no group
    /// What exchanges took so far; called between steps, some hundred times a job. Empty: not measured.
    std::function<ExchangeSeconds()> exchange_seconds;
  };
  explicit Engine(const Parts& parts);

  /// Throws what the parts throw.
  EngineStats run();
  /// Where the time of `run` went.
  const BinnedSums& timeline() const { return timeline_.sums(); }

 private:
  /// Bits of a rank's bid.
  static constexpr int32_t kFinished = 1;

  StepPlan plan_step(int32_t& flags);
  void sample_timeline(bool last);
  void talk();
  void take_rows();
  /// Adds a sequence to those that wait to run, at once or when its grammar is there.
  void enqueue(Sequence sequence);
  /// Adds those whose grammars have come.
  void take_grammars();
  /// A row's own answer, and that of the rows that wait for it.
  void add_finished(RowResult result);
  /// Answers that wait to run, or for their grammars.
  int64_t num_waiting() const;
  void add_answer(RowResult result);
  void add_repeated_answer(RowResult result);
  void broadcast(StepPlan& plan, int32_t& flags);
  /// Makes the plan's masks, or takes them from the leader, while the step runs.
  void fill_masks(StepPlan& plan);
  /// What the group's ranks made of the step: `results` of all logit rows, `routed` of all tokens. On a rank
  /// that does not lead nothing.
  StepResult gather(const StepPlan& plan, StepResult mine);
  void answer(const StepPlan& plan, const StepResult& result);

  Parts parts_;
  int tp_rank_ = 0, tp_size_ = 1;
  EngineStats stats_;
  StepTimeline timeline_;
  std::chrono::steady_clock::time_point began_;
  DistinctTokens distinct_;
  RepeatedRows repeated_;
  int64_t counted_shared_ = 0;  // prompt tokens taken over that were reported
};

}  // namespace moerun
