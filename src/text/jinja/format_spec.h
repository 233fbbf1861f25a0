#pragma once
#include <string>
#include <string_view>

#include "text/jinja/runtime.h"

namespace moerun::jinja {

constexpr int kMaxWidth = 100'000;  ///< of a format, in characters

/// How one value is to be written; both kinds of format come down to it.
struct FormatSpec {
  char32_t fill = ' ';
  char align = 0;   ///< < > ^ = or 0: the type's own
  char sign = '-';  ///< + - or a space
  bool alternate = false;
  bool thousands = false;
  int width = 0;
  int precision = -1;
  char type = 0;
};

/// As wide as asked for. `sign_length`: bytes before which nothing is filled in where `align` is =.
std::string padded(const FormatSpec& spec, std::string text, size_t sign_length, char own_align);
/// An integer in the base of the type (d x X o b).
std::string integer_text(const FormatSpec& spec, const Integer& value);
/// A number as e E f F g G n % or, without a type, as Python prints it.
std::string float_formatted(const FormatSpec& spec, double value);
/// The first `count` code points; all of them where it is negative.
std::string first_characters(const std::string& text, int count);
/// Digits at `pos`, which moves behind them. Throws TemplateError beyond the widest format.
int read_number(std::string_view text, size_t& pos);
/// What %d and its like take, and what %e and its like take. Throw TemplateError for others.
Integer whole_of(const Value& value, char type);
double real_of(const Value& value);
/// Python's format(value, text).
std::string formatted(const Value& value, std::string_view text);

}  // namespace moerun::jinja
