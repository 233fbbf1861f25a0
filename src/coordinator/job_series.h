#pragma once
#include <algorithm>
#include <cstdint>
#include <vector>

#include "base/binned_sums.h"

namespace moerun {

/// How a job went over time, earlier runs of it included: time goes on only while a run hands out rows or
/// waits for answers, and a run begins where the one before it ended. Thread contract: one thread.
struct JobSeries {
  enum Column : size_t {
    prompt_tokens,  ///< computed or taken over
    output_tokens,  ///< drawn, or of rows that repeat others
    rows,           ///< answered
    running,        ///< sequences × seconds
    waiting,        ///< the same
    blocks_used,    ///< blocks of keys and values × seconds
    num_columns
  };
  /// A run that handed out rows.
  struct Run {
    double begin_s = 0, end_s = 0;  ///< in the job's time
    int64_t began = 0, ended = 0;   ///< seconds since 1970
    uint64_t answered = 0;          ///< rows at its end, by earlier runs too
  };
  static constexpr size_t kMostBins = 512, kMostRuns = 64;
  static constexpr double kFirstBin_s = 0.1;

  BinnedSums sums{num_columns, kMostBins, kFirstBin_s};
  std::vector<Run> runs;  ///< the last is this run; of very many, the first and the last ones

  /// Another run begins to hand out rows at `now`, seconds since 1970.
  void begin_run(int64_t now) {
    if (runs.size() == kMostRuns) runs.erase(runs.begin() + 1);
    runs.push_back({.begin_s = sums.end_s(), .end_s = sums.end_s(), .began = now, .ended = now});
  }
  /// `begin_s`, `end_s`: in the run's time.
  void add(Column column, double begin_s, double end_s, double amount) {
    const double offset = runs.back().begin_s;
    sums.add(column, offset + begin_s, offset + end_s, amount);
  }
  /// Of a column a second, over about the last `span_s`; 0 before the first.
  double lately_per_s(Column column, double span_s) const {
    const std::vector<double> of_bin = sums.column(column);
    double sum = 0, seconds = 0;
    for (size_t bin = of_bin.size(); bin-- > 0 && seconds < span_s;) {
      sum += of_bin[bin];
      seconds += sums.length_s(bin);
    }
    return seconds > 0 ? sum / seconds : 0;
  }
};

}  // namespace moerun
