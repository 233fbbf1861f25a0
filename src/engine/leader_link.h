#pragma once
#include <mpi.h>

#include <chrono>
#include <cstdint>
#include <vector>

#include "coordinator/mailbox.h"
#include "coordinator/messages.h"

namespace moerun {

/// A leader's end of the control communicator: rows come in, answers go out, nothing waits. Thread contract:
/// the leader's engine thread.
class LeaderLink {
 public:
  /// `group`: the leader's place among the leaders. The coordinator is rank 0 of `control`.
  LeaderLink(MPI_Comm control, int group) : mailbox_(control), group_(group) {}

  /// A row, and where it stands.
  struct Row {
    PromptRecord record;
    RowPlace place;
  };
  /// Takes what the coordinator has sent; returns the new rows.
  std::vector<Row> poll();
  bool no_more() const { return no_more_; }
  /// Rows that this group will still get, as the last handout that brought rows said; 0 once no more come.
  uint64_t rows_left() const { return rows_left_; }
  Stop stop() const { return stop_; }

  void add(RowResult result);
  void count(uint64_t prompt_tokens, uint64_t output_tokens) {
    report_.prompt_tokens += prompt_tokens;
    report_.output_tokens += output_tokens;
  }
  /// Sends answers if there are any, and asks for rows unless it has asked already; without either, how far
  /// the running sequences have come, once a second.
  void report(int64_t want, const GroupLoad& load);
  /// The last report. Returns when MPI has taken it.
  void finish();

 private:
  void send();

  Mailbox mailbox_;
  int group_;
  LeaderReport report_;      // in the making
  size_t routed_bytes_ = 0;  // of its results
  bool asked_ = false, no_more_ = false;
  uint64_t rows_left_ = 0;
  Stop stop_ = Stop::none;
  std::chrono::steady_clock::time_point sent_;
};

}  // namespace moerun
