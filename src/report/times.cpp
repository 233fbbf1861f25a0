#include "report/times.h"

#include <fmt/format.h>

#include <algorithm>

#include "report/progress_line.h"

namespace moerun {

JobTimes job_times(const JobReport& report) {
  const JobProgress& progress = report.outcome.progress;
  JobTimes times{.merge = report.outcome.merge_s};
  for (const RankReport& rank : report.ranks) {
    times.load = std::max(times.load, rank.load_s);
    times.warm_up = std::max(times.warm_up, rank.engine.first_step_s);
  }
  // Ranks and coordinator start their clocks within moments of each other, not at once.
  times.warm_up = std::min(times.warm_up, progress.seconds);
  const double handed_out = progress.handed_out_s > 0 ? progress.handed_out_s : progress.seconds;
  times.steady = std::max(0.0, handed_out - times.warm_up);
  times.tail = progress.seconds - times.warm_up - times.steady;
  return times;
}

void StepTime::add(const RankReport& rank) {
  split = split && rank.all_to_all_s >= 0 && rank.tensor_s >= 0;
  const double exchange = std::max(rank.all_to_all_s, 0.0), collectives = std::max(rank.tensor_s, 0.0);
  compute += rank.engine.forward_s - exchange - collectives;
  all_to_all += exchange;
  tensor += collectives;
  waiting += rank.engine.agree_s + rank.engine.idle_s;
}

StepTime step_time(const JobReport& report) {
  StepTime time;
  for (const RankReport& rank : report.ranks) time.add(rank);
  return time;
}

double per_second(uint64_t count, double seconds) {
  return seconds > 0 ? static_cast<double>(count) / seconds : 0;
}

std::string steady_text(const JobProgress& progress) {
  if (const auto rate = progress.steady_tokens_per_s())
    return fmt::format("{} tokens/s between the first answer and the last hand-out",
                       with_commas(static_cast<uint64_t>(*rate)));
  return "no rate: too short between the first answer and the last hand-out to measure one";
}

}  // namespace moerun
