#include "text/jinja/format_spec.h"

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "text/jinja/operators.h"
#include "text/jinja/text.h"
#include "text/unicode.h"

namespace moerun::jinja {
namespace {

std::string with_thousands(std::string digits) {
  const size_t end = std::min(digits.find_first_not_of("0123456789"), digits.size());
  for (size_t at = end; at > 3;) digits.insert(at -= 3, ",");
  return digits;
}

std::string signed_text(const FormatSpec& spec, bool negative, const std::string& prefix,
                        std::string digits) {
  if (spec.thousands) digits = with_thousands(std::move(digits));
  std::string sign = negative ? "-" : spec.sign == '-' ? "" : std::string(1, spec.sign);
  sign += prefix;
  const size_t sign_length = sign.size();
  return padded(spec, sign + digits, sign_length, '>');
}

std::string float_digits(const FormatSpec& spec, double magnitude, char type) {
  if (!std::isfinite(magnitude)) {
    const bool upper = type == 'E' || type == 'F' || type == 'G';
    return std::isnan(magnitude) ? (upper ? "NAN" : "nan") : upper ? "INF" : "inf";
  }
  const int precision = spec.precision < 0 ? 6 : spec.precision;
  const std::string format = fmt::format("%{}.*{}", spec.alternate ? "#" : "", type);
  const int size = std::snprintf(nullptr, 0, format.c_str(), precision, magnitude);
  std::string out(static_cast<size_t>(size) + 1, '\0');
  std::snprintf(out.data(), out.size(), format.c_str(), precision, magnitude);
  out.pop_back();
  return out;
}

FormatSpec parse_spec(std::string_view text) {
  FormatSpec spec;
  size_t pos = 0;
  const auto is_align = [](char c) { return c == '<' || c == '>' || c == '^' || c == '='; };
  const size_t first = text.empty() ? 0 : utf8_unit_at(text, 0).length;
  if (first < text.size() && is_align(text[first])) {
    spec.fill = code_point_at(text, 0);
    spec.align = text[first];
    pos = first + 1;
  } else if (!text.empty() && is_align(text[0])) {
    spec.align = text[0];
    pos = 1;
  }
  const auto skip = [&](char c) { return pos < text.size() && text[pos] == c && ++pos; };
  if (skip('+'))
    spec.sign = '+';
  else if (skip(' '))
    spec.sign = ' ';
  else
    skip('-');
  spec.alternate = skip('#');
  if (skip('0') && !spec.align) {
    spec.fill = '0';
    spec.align = '=';
  }
  spec.width = read_number(text, pos);
  spec.thousands = skip(',');
  if (skip('.')) spec.precision = read_number(text, pos);
  if (pos < text.size()) spec.type = text[pos++];
  if (pos < text.size()) throw TemplateError(fmt::format("Invalid format specifier '{}'", text));
  return spec;
}

}  // namespace

std::string padded(const FormatSpec& spec, std::string text, size_t sign_length, char own_align) {
  const size_t size = length(text);
  if (size >= static_cast<size_t>(spec.width)) return text;
  const size_t missing = static_cast<size_t>(spec.width) - size;
  const char align = spec.align ? spec.align : own_align;
  const size_t before = align == '<' ? 0 : align == '^' ? missing / 2 : missing;
  std::string fill;
  for (size_t i = 0; i < before; ++i) append_utf8(spec.fill, fill);
  if (align == '=') return text.insert(sign_length, fill);
  std::string out = fill + text;
  for (size_t i = before; i < missing; ++i) append_utf8(spec.fill, out);
  return out;
}

std::string integer_text(const FormatSpec& spec, const Integer& value) {
  const int base = spec.type == 'x' || spec.type == 'X' ? 16
                   : spec.type == 'o'                   ? 8
                   : spec.type == 'b'                   ? 2
                                                        : 10;
  std::string digits = value.digits(base, spec.type == 'X');
  if (spec.precision > static_cast<int>(digits.size()))
    digits.insert(0, static_cast<size_t>(spec.precision) - digits.size(), '0');
  std::string prefix;
  if (spec.alternate && base != 10) prefix = {'0', spec.type};
  return signed_text(spec, value.is_negative(), prefix, std::move(digits));
}

std::string float_formatted(const FormatSpec& spec, double value) {
  const bool negative = std::signbit(value) && !std::isnan(value);
  const double magnitude = std::abs(value);
  std::string digits;
  if (spec.type == '%')
    digits = float_digits(spec, magnitude * 100, 'f') + "%";
  else if (spec.type == 0 && spec.precision < 0)
    digits = float_text(magnitude);
  else if (spec.type == 0 || spec.type == 'n')
    digits = float_digits(spec, magnitude, 'g');
  else
    digits = float_digits(spec, magnitude, spec.type);
  return signed_text(spec, negative, "", std::move(digits));
}

std::string first_characters(const std::string& text, int count) {
  return count < 0 ? text : text.substr(0, byte_of(text, static_cast<size_t>(count)));
}

int read_number(std::string_view text, size_t& pos) {
  int value = 0;
  while (pos < text.size() && text[pos] >= '0' && text[pos] <= '9') {
    value = value * 10 + (text[pos++] - '0');
    if (value > kMaxWidth) throw TemplateError("a format is too wide", TemplateError::Kind::limit);
  }
  return value;
}

Integer whole_of(const Value& value, char type) {
  require_defined(value);
  if (const auto integer = value.as_integer()) return *integer;
  if (const double* floating = value.floating();
      floating && std::isfinite(*floating) && type != 'x' && type != 'X' && type != 'o')
    return Integer::from_double(*floating);
  throw TemplateError(fmt::format("%{} format: {} is required, not {}", type,
                                  type == 'x' || type == 'X' || type == 'o' ? "an integer" : "a real number",
                                  type_name(value)));
}

double real_of(const Value& value) {
  require_defined(value);
  if (const double* floating = value.floating()) return *floating;
  if (const auto integer = value.as_integer()) return integer->to_double();
  throw TemplateError(fmt::format("must be real number, not {}", type_name(value)));
}

std::string formatted(const Value& value, std::string_view text) {
  if (text.empty()) return text_of(value);
  FormatSpec spec = parse_spec(text);
  const auto unknown = [&]() -> std::string {
    throw TemplateError(
        fmt::format("Unknown format code '{}' for object of type '{}'", spec.type, type_name(value)));
  };
  static constexpr std::string_view kFloatTypes = "eEfFgGn%", kIntegerTypes = "dxXobcn";
  if (const String* string = value.string()) {
    if (spec.type != 0 && spec.type != 's') return unknown();
    if (spec.align == '=') {
      if (spec.fill != '0') throw TemplateError("'=' alignment not allowed in string format specifier");
      spec.align = '<';
    }
    return padded(spec, first_characters(string->text, spec.precision), 0, '<');
  }
  if (const auto integer = value.as_integer();
      integer && (spec.type == 0 || kIntegerTypes.find(spec.type) != kIntegerTypes.npos)) {
    if (spec.precision >= 0) throw TemplateError("Precision not allowed in integer format specifier");
    return integer_text(spec, *integer);
  }
  if (value.is_number()) {
    if (spec.type != 0 && kFloatTypes.find(spec.type) == kFloatTypes.npos) return unknown();
    return float_formatted(spec, real_of(value));
  }
  throw TemplateError(fmt::format("unsupported format string passed to {}.__format__", type_name(value)));
}

}  // namespace moerun::jinja
