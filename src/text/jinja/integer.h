#pragma once
#include <openssl/bn.h>

#include <compare>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

namespace moerun::jinja {

/// A whole number of any size up to kMaxIntegerBits, as Python's int: JSON's numbers keep their digits.
/// Immutable. Operations throw TemplateError ("OverflowError", "ZeroDivisionError").
class Integer {
 public:
  Integer(int64_t value = 0) : small_(value) {}  // NOLINT(google-explicit-constructor)
  /// Digits with a sign before them and nothing else.
  static Integer from_digits(std::string_view decimal);
  /// Digits of base 2, 8, 10 or 16.
  static Integer from_digits(std::string_view digits, int base);
  /// The whole part of a finite number.
  static Integer from_double(double value);

  bool fits() const { return !big_; }  ///< whether small() is the value
  int64_t small() const { return small_; }
  bool is_zero() const { return !big_ && small_ == 0; }
  bool is_negative() const;
  std::string text() const;                        ///< decimal
  std::string digits(int base, bool upper) const;  ///< of the absolute value
  double to_double() const;                        ///< throws where it is too large for one
  size_t hash() const;

  friend Integer operator+(const Integer& a, const Integer& b);
  friend Integer operator-(const Integer& a, const Integer& b);
  friend Integer operator*(const Integer& a, const Integer& b);
  Integer operator-() const;
  /// Python's // and %: rounded down, the sign of the divisor.
  static Integer floor_divide(const Integer& a, const Integer& b);
  static Integer modulo(const Integer& a, const Integer& b);
  static Integer power(const Integer& base, const Integer& exponent);  ///< exponent ≥ 0
  friend std::strong_ordering operator<=>(const Integer& a, const Integer& b);
  friend bool operator==(const Integer& a, const Integer& b) { return std::is_eq(a <=> b); }
  /// Exactly, as Python compares int and float; unordered with NaN.
  static std::partial_ordering compare(const Integer& a, double b);

 private:
  using Big = std::shared_ptr<BIGNUM>;
  static Big make();
  static Integer from_big(Big big);
  Big big() const;
  static std::pair<Integer, Integer> divide(const Integer& a, const Integer& b);

  int64_t small_ = 0;
  Big big_;  // set where the value does not fit small_
};

}  // namespace moerun::jinja
