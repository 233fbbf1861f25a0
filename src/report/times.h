#pragma once
#include <string>

#include "report/report.h"

namespace moerun {

/// The parts of a job's time in seconds. Warm-up, steady and tail follow one another from the moment that
/// rows are handed out; input checks before and the program's end are in none.
struct JobTimes {
  double load = 0;     ///< the slowest rank's, weights and memory
  double warm_up = 0;  ///< until every rank has its first step behind it
  double steady = 0;   ///< from there until the last row was handed out
  double tail = 0;     ///< until the last answer
  double merge = 0;    ///< sealed answers into the output
};
JobTimes job_times(const JobReport& report);

/// Seconds of the steps, over all ranks.
struct StepTime {
  double compute = 0, all_to_all = 0, tensor = 0, waiting = 0;
  bool split = true;  ///< whether the exchanges were measured by themselves; if not they are in `compute`

  double whole() const { return compute + all_to_all + tensor + waiting; }
  void add(const RankReport& rank);
};
StepTime step_time(const JobReport& report);

/// count / seconds; 0 when no time has passed.
double per_second(uint64_t count, double seconds);

/// The steady rate for people, or why there is none.
std::string steady_text(const JobProgress& progress);

}  // namespace moerun
