#pragma once
#include <mpi.h>

#include <chrono>
#include <cstdint>
#include <exception>
#include <filesystem>
#include <functional>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "coordinator/job_series.h"
#include "coordinator/mailbox.h"
#include "coordinator/messages.h"
#include "coordinator/prompt_ids.h"
#include "coordinator/row_order.h"
#include "fault/signals.h"
#include "moerun/io.h"

namespace moerun {

/// How far the job is, for the progress line and the report.
struct JobProgress {
  uint64_t num_rows = 0, num_answered = 0;        ///< all; answered, earlier runs included
  uint64_t answered_now = 0, row_errors = 0;      ///< by this run
  uint64_t prompt_tokens = 0, output_tokens = 0;  ///< computed or drawn by this run, or taken over
  uint64_t handed_out = 0;                        ///< rows
  uint64_t most_output_tokens = 0;                ///< of those: the sum of n · max_tokens
  int64_t running = 0, waiting = 0;               ///< sequences at the leaders
  int64_t blocks_used = 0, num_blocks = 0;        ///< of keys and values, of all groups
  struct Group : GroupLoad {
    double reported_s = 0;  ///< `seconds` when its leader last said so
  };
  std::vector<Group> groups;
  double seconds = 0;                ///< since the first row was handed out
  double handed_out_s = 0;           ///< of them until the last row was, or a stop came; 0: not yet
  double first_answer_s = 0;         ///< of them until the first answer came; 0: not yet
  double sequence_seconds = 0;       ///< that sequences ran, of all that ran at once together
  uint64_t tokens_first_answer = 0;  ///< prompt and output tokens when the first answer came
  uint64_t tokens_handed_out = 0;    ///< prompt and output tokens at handed_out_s
  JobSeries series;                  ///< earlier runs included

  /// `now`: seconds since the first row was handed out. The first call counts.
  void end_handing_out(double now) {
    if (handed_out_s > 0) return;
    handed_out_s = now;
    tokens_handed_out = tokens();
  }
  /// Makes running, waiting and the blocks those of all groups.
  void sum_groups() {
    running = waiting = blocks_used = num_blocks = 0;
    for (const Group& group : groups) {
      running += group.running;
      waiting += group.waiting;
      blocks_used += group.blocks_used;
      num_blocks += group.num_blocks;
    }
  }
  uint64_t tokens() const { return prompt_tokens + output_tokens; }
  /// Seconds that the rest will take, by the output tokens that it has at this run's rate and mean answer.
  /// While few answers have ended, the mean is what was drawn so far over those that ended, but no more than
  /// rows may have: with none ended this is the most that is left. None before the first token.
  std::optional<double> seconds_left() const;
  /// How long an answer of this run was at work, in the mean; 0 while there is none.
  double answer_s() const {
    return answered_now > 0 ? sequence_seconds / static_cast<double>(answered_now) : 0;
  }
  /// Prompt and output tokens a second between the first answer and the last hand-out, while leaders lack
  /// nothing and both kinds come in their proportion. None where that span is no measure of the job: it is
  /// shorter than a fifth of the job, or than two answers take.
  std::optional<double> steady_tokens_per_s() const {
    const double span = handed_out_s - first_answer_s;
    if (first_answer_s <= 0 || span <= 0 || span < seconds / 5 || span < 2 * answer_s()) return {};
    return static_cast<double>(tokens_handed_out - tokens_first_answer) / span;
  }
};

/// How the coordinator's work ended.
struct JobOutcome {
  bool complete = false;    ///< every row is answered and the output has its final name
  StopRequest stop;         ///< why it is not
  uint64_t row_errors = 0;  ///< rows of the whole output that carry an error, when complete
  JobProgress progress;
  double merge_s = 0;
  /// The coordinator's thread until the last answer: what it had of a core, and its messages.
  double processor_s = 0;
  MailboxTraffic traffic;
};

/// The coordinator of a job: a host-only thread of rank 0 that reads the input, hands rows to the leaders on
/// demand, collects answers, seals them, and decides the end. It begins before the weights load: rows that
/// are put in order are read meanwhile. It never touches CUDA or NCCL, and the build proves that it cannot
/// name them. While nothing comes it sleeps for some milliseconds at a time.
class Coordinator {
 public:
  struct Parts {
    MPI_Comm control = MPI_COMM_NULL;
    std::vector<int> leaders;  ///< ranks of `control`
    RecordSource* source = nullptr;
    ResultStore* store = nullptr;
    /// Rows are put in an order in which those that begin alike meet, by way of files here; none: they go out
    /// in the input's order.
    std::optional<std::filesystem::path> order_in;
    /// Where prompts are truncated, texts are put in order as `ids` and `room` leave them; null:
    /// as they are.
    PromptIds* ids = nullptr;
    PromptRoom room;
    StopSignals* signals = nullptr;
    JobSeries earlier;  ///< what earlier runs of the job have left
    std::function<void(const JobProgress&)>
        show;                       ///< called often, from the coordinator's thread; may be empty
    std::function<void()> merging;  ///< called when the answers begin to be merged; may be empty
    /// Called with what ended the thread, when that is an error; must end the job, for leaders wait for
    /// answers.
    std::function<void(const std::exception_ptr&)> on_error;
  };
  /// Starts the thread. Parts must outlive it.
  explicit Coordinator(Parts parts);
  ~Coordinator();
  Coordinator(const Coordinator&) = delete;
  Coordinator& operator=(const Coordinator&) = delete;

  /// Waits for the end. Call it once, from the main thread.
  JobOutcome join();
  /// For the watchdog, from its own thread while the job is being ended: seals the answers that are here, if
  /// that can begin within a moment.
  void seal_for_fault();

 private:
  struct Group {
    int32_t want = 0;
    bool told_no_more = false, finished = false;
  };

  void serve();
  bool take_reports();
  void take(LeaderReport report);
  void hand_out();
  /// Reads rows that are to be put in order; false when there is nothing to read any more.
  bool read_ahead();
  /// Adds to a handout up to `most` rows that no earlier run has answered, and no more than `answers` answers
  /// need; rows that begin alike may be more than `most`.
  void add_rows(Handout& handout, size_t group, uint64_t most, uint64_t answers);
  /// The next row for a group; false when there is none. `begins` as RowOrder::next.
  bool next_row(size_t group, bool begins, PromptRecord& record, RowPlace& place);
  uint64_t rows_left() const { return order_ ? order_->rows_left() : outcome_.progress.num_rows - next_row_; }
  bool exhausted(size_t group) const { return order_ ? order_->exhausted(group) : exhausted_; }
  void send_to(size_t group, const Handout& handout);
  void relay_stop();
  void keep(RowResult result);
  void finish();
  void update_progress();
  void begin();
  /// Seconds since a leader first asked for rows; 0 before, while weights load.
  double since_began() const {
    if (!began_) return 0;
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - *began_).count();
  }

  Parts parts_;
  Mailbox mailbox_;
  std::vector<Group> groups_;
  std::optional<RowOrder> order_;
  uint64_t next_row_ = 0;
  bool exhausted_ = false;  // the input is
  Stop told_stop_ = Stop::none;
  std::exception_ptr store_fault_;  // a full disk: nothing is kept any more
  JobOutcome outcome_;
  std::optional<std::chrono::steady_clock::time_point> began_;
  std::timed_mutex store_mutex_;
  std::exception_ptr error_;
  std::thread thread_;
};

}  // namespace moerun
