#include "text/python_json.h"

#include <fmt/format.h>

#include <array>
#include <charconv>
#include <cmath>
#include <string_view>

#include "moerun/error.h"

namespace moerun {
namespace {

using nlohmann::ordered_json;

/// Python's repr(float): the shortest digits that give the same double, with an exponent below 1e-4 and from
/// 1e16.
std::string python_float(double x) {
  if (std::abs(x) >= 0x1p63)
    throw BadInput(fmt::format("the number {} is too large to be rendered as Python would", x));
  std::array<char, 40> buffer;
  const double magnitude = std::abs(x);
  const bool scientific = magnitude != 0 && (magnitude < 1e-4 || magnitude >= 1e16);
  const auto format = scientific ? std::chars_format::scientific : std::chars_format::fixed;
  const auto result = std::to_chars(buffer.data(), buffer.data() + buffer.size(), x, format);
  std::string text(buffer.data(), result.ptr);
  if (!scientific && text.find('.') == std::string::npos) text += ".0";
  return text;
}

void append(const ordered_json& value, std::string& out) {
  if (value.is_object()) {
    std::string_view separator = "{";
    for (const auto& [key, member] : value.items()) {
      out += separator;
      out += ordered_json(key).dump();
      out += ": ";
      append(member, out);
      separator = ", ";
    }
    out += value.empty() ? "{}" : "}";
  } else if (value.is_array()) {
    std::string_view separator = "[";
    for (const auto& element : value) {
      out += separator;
      append(element, out);
      separator = ", ";
    }
    out += value.empty() ? "[]" : "]";
  } else if (value.is_number_float()) {
    out += python_float(value);
  } else {
    out += value.dump();  // strings, integers, booleans and null are spelled alike
  }
}

}  // namespace

std::string python_json(const nlohmann::ordered_json& value) {
  std::string out;
  append(value, out);
  return out;
}

}  // namespace moerun
