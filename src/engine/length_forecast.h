#pragma once
#include <cstddef>
#include <cstdint>
#include <vector>

namespace moerun {

/// A sequence's keys and values: what it holds, and for how many steps it will gain a token each before it
/// ends and holds nothing. A sequence whose length is not known is several of these.
struct ExpectedLength {
  int64_t tokens = 0, steps_left = 0;
  double weight = 1;  ///< how likely this is
  /// What it adds to p · (1 − p), where p is the chance that the sequence is still there: how uncertain it
  /// is.
  double variance = 0;
};

/// The tokens that running sequences will hold at the most, if none is added. Sequences that began together
/// hold their longest at the same time; those that began one after the other never do. So the same memory has
/// room for up to twice as many of these. Up to 1,024 steps ahead it counts each step, further ahead to a
/// part in 512.
class LengthForecast {
 public:
  void add(const ExpectedLength& sequence);
  /// The most that is held at a time, of what was added: what is expected, and three times its
  /// standard deviation more.
  double peak() const;
  /// Undoes `add`.
  void remove(const ExpectedLength& sequence);

 private:
  struct Bin {
    double tokens = 0, weight = 0;                         // expected: tokens + weight · steps
    double square = 0, tokens_variance = 0, variance = 0;  // of the same: a polynomial in steps
    void add(const ExpectedLength& sequence, double sign);
  };
  static size_t bin_of(int64_t steps);
  static int64_t last_step(size_t bin);

  std::vector<Bin> bins_;  // by steps_left
};

}  // namespace moerun
