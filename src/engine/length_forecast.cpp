#include "engine/length_forecast.h"

#include <algorithm>
#include <bit>
#include <cmath>

namespace moerun {

namespace {

/// Admission goes up to the limit all the time, so what is uncertain must be rare.
constexpr double kDeviations = 3;
/// So many steps are told apart one by one; each further doubling in half as many parts.
constexpr int kBits = 10;
constexpr int64_t kExact = int64_t{1} << kBits, kParts = kExact / 2;

}  // namespace

size_t LengthForecast::bin_of(int64_t steps) {
  if (steps < kExact) return static_cast<size_t>(steps);
  const int doublings = std::bit_width(static_cast<uint64_t>(steps)) - kBits;
  return static_cast<size_t>(doublings * kParts + (steps >> doublings));
}

int64_t LengthForecast::last_step(size_t bin) {
  const auto place = static_cast<int64_t>(bin);
  if (place < kExact) return place;
  const int64_t doublings = place / kParts - 1;
  return ((place - doublings * kParts + 1) << doublings) - 1;
}

void LengthForecast::Bin::add(const ExpectedLength& sequence, double sign) {
  const auto held = static_cast<double>(sequence.tokens);
  tokens += sign * sequence.weight * held;
  weight += sign * sequence.weight;
  square += sign * sequence.variance * held * held;
  tokens_variance += sign * sequence.variance * held;
  variance += sign * sequence.variance;
}

void LengthForecast::add(const ExpectedLength& sequence) {
  const size_t bin = bin_of(sequence.steps_left);
  if (bins_.size() <= bin) bins_.resize(bin + 1);
  bins_[bin].add(sequence, 1);
}

void LengthForecast::remove(const ExpectedLength& sequence) {
  bins_[bin_of(sequence.steps_left)].add(sequence, -1);
}

double LengthForecast::peak() const {
  // Only what stays longer is still there when a sequence ends; between two ends the sum only grows.
  double peak = 0;
  Bin longer;
  for (size_t bin = bins_.size(); bin-- > 0;) {
    const Bin& here = bins_[bin];
    if (here.weight == 0) continue;
    longer.tokens += here.tokens, longer.weight += here.weight;
    longer.square += here.square, longer.tokens_variance += here.tokens_variance;
    longer.variance += here.variance;
    const auto steps = static_cast<double>(last_step(bin));
    const double variance = longer.square + steps * (2 * longer.tokens_variance + steps * longer.variance);
    peak = std::max(peak,
                    longer.tokens + longer.weight * steps + kDeviations * std::sqrt(std::max(variance, 0.0)));
  }
  return peak;
}

}  // namespace moerun
