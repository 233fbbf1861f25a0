#include "base/binned_sums.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "moerun/error.h"

namespace moerun {

BinnedSums::BinnedSums(size_t num_columns, size_t most_bins, double bin_s)
    : most_bins_(most_bins), bin_s_(bin_s), columns_(num_columns, std::vector<double>(most_bins)) {}

BinnedSums::BinnedSums(std::vector<std::vector<double>> columns, size_t most_bins, double bin_s, double end_s)
    : most_bins_(most_bins), bin_s_(bin_s), end_s_(end_s), columns_(std::move(columns)) {
  num_bins_ = columns_.empty() ? 0 : columns_.front().size();
  // Ten thousand years: what is longer than any job is damage.
  constexpr double kLongest = 3e11;
  const auto bins = static_cast<double>(num_bins_);
  const bool time_holds = std::isfinite(bin_s) && bin_s > 0 && bin_s < kLongest && std::isfinite(end_s) &&
                          end_s >= 0 && end_s <= bin_s * bins * (1 + 1e-6) && num_bins_ <= most_bins &&
                          (num_bins_ == 0 || end_s >= bin_s * (bins - 1) * (1 - 1e-6));
  if (!time_holds) throw Error("a series over time has another number of values than it lasts");
  for (std::vector<double>& column : columns_) {
    if (column.size() != num_bins_) throw Error("series over time differ in length");
    for (const double value : column)
      if (!std::isfinite(value) || value < 0) throw Error("a series over time holds what is no amount");
    column.resize(most_bins_);
  }
}

double BinnedSums::length_s(size_t bin) const {
  return std::min(end_s_ - bin_s_ * static_cast<double>(bin), bin_s_);
}

std::vector<double> BinnedSums::column(size_t column) const {
  const std::vector<double>& sums = columns_.at(column);
  return {sums.begin(), sums.begin() + static_cast<std::ptrdiff_t>(num_bins_)};
}

void BinnedSums::halve() {
  for (std::vector<double>& sums : columns_) {
    for (size_t bin = 0; bin < most_bins_ / 2; ++bin) sums[bin] = sums[2 * bin] + sums[2 * bin + 1];
    std::fill(sums.begin() + static_cast<std::ptrdiff_t>(most_bins_ / 2), sums.end(), 0.0);
  }
  bin_s_ *= 2;
}

void BinnedSums::extend(double end_s) {
  if (end_s <= end_s_) return;
  while (end_s > bin_s_ * static_cast<double>(most_bins_)) halve();
  end_s_ = end_s;
  num_bins_ = std::min(most_bins_, static_cast<size_t>(std::ceil(end_s / bin_s_)));
}

void BinnedSums::add(size_t column, double begin_s, double end_s, double amount) {
  extend(end_s);
  std::vector<double>& sums = columns_.at(column);
  const size_t last_bin = std::max<size_t>(num_bins_, 1) - 1;
  const auto bin_of = [&](double second) {
    return std::min(static_cast<size_t>(std::max(second, 0.0) / bin_s_), last_bin);
  };
  const size_t first = bin_of(begin_s), last = bin_of(end_s);
  if (first == last || end_s <= begin_s) {
    sums[first] += amount;
    return;
  }
  const double each_s = amount / (end_s - begin_s);
  for (size_t bin = first; bin <= last; ++bin) {
    const double from = std::max(begin_s, bin_s_ * static_cast<double>(bin));
    const double to = std::min(end_s, bin_s_ * static_cast<double>(bin + 1));
    if (to > from) sums[bin] += each_s * (to - from);
  }
}

}  // namespace moerun
