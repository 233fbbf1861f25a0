#pragma once
#include <cstddef>
#include <cstdint>
#include <vector>

namespace moerun {

/// Sums over equal spans of time ("bins") that follow one another from 0, in memory that does not grow: where
/// an amount lies behind the last bin that there is room for, neighbours become one, and bins are twice as
/// long from then on. Thread contract: one thread.
class BinnedSums {
 public:
  /// `most_bins`: even. `bin_s`: of a bin in the beginning, in seconds.
  BinnedSums(size_t num_columns, size_t most_bins, double bin_s);
  /// What an earlier one held. Throws Error where columns differ in length, have more than `most_bins` sums,
  /// or one that is no number; `end_s` must lie in the last bin.
  BinnedSums(std::vector<std::vector<double>> columns, size_t most_bins, double bin_s, double end_s);

  /// Adds to a column what came to be evenly over [begin_s, end_s).
  void add(size_t column, double begin_s, double end_s, double amount);
  /// Time has passed, with or without amounts.
  void extend(double end_s);

  double bin_s() const { return bin_s_; }
  double end_s() const { return end_s_; }
  size_t num_bins() const { return num_bins_; }
  /// Seconds of a bin; the last may not be over.
  double length_s(size_t bin) const;
  /// [num_bins]
  std::vector<double> column(size_t column) const;

 private:
  void halve();

  size_t most_bins_;
  double bin_s_, end_s_ = 0;
  size_t num_bins_ = 0;
  std::vector<std::vector<double>> columns_;  // [columns][most_bins]
};

}  // namespace moerun
