#include "engine/length_forecast.h"

#include <algorithm>
#include <utility>

namespace moerun {

namespace {

bool stays_longer(const ExpectedLength& a, const ExpectedLength& b) { return a.steps_left > b.steps_left; }

}  // namespace

LengthForecast::LengthForecast(std::vector<ExpectedLength> running) : running_(std::move(running)) {
  std::sort(running_.begin(), running_.end(), stays_longer);
}

void LengthForecast::add(const ExpectedLength& sequence) {
  running_.insert(std::upper_bound(running_.begin(), running_.end(), sequence, stays_longer), sequence);
}

int64_t LengthForecast::peak_with(const ExpectedLength& sequence) const {
  // Only what stays longer is still there when a sequence ends; between two ends the sum only grows.
  int64_t peak = 0, tokens = 0, count = 0;
  const auto meet = [&](const ExpectedLength& next) {
    tokens += next.tokens, ++count;
    peak = std::max(peak, tokens + count * next.steps_left);
  };
  const auto place = std::upper_bound(running_.begin(), running_.end(), sequence, stays_longer);
  std::for_each(running_.begin(), place, meet);
  meet(sequence);
  std::for_each(place, running_.end(), meet);
  return peak;
}

}  // namespace moerun
