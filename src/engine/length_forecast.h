#pragma once
#include <cstdint>
#include <vector>

namespace moerun {

/// A sequence's keys and values: what it holds, and for how many steps it will gain a token each before it
/// ends and holds nothing.
struct ExpectedLength {
  int64_t tokens = 0, steps_left = 0;
};

/// The tokens that running sequences will hold at the most, if none is added. Sequences that began together
/// hold their longest at the same time; those that began one after the other never do. So the same memory has
/// room for up to twice as many of these.
class LengthForecast {
 public:
  explicit LengthForecast(std::vector<ExpectedLength> running);

  void add(const ExpectedLength& sequence);
  /// With one more sequence.
  int64_t peak_with(const ExpectedLength& sequence) const;

 private:
  std::vector<ExpectedLength> running_;  // by steps_left, the longest first
};

}  // namespace moerun
