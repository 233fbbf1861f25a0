#pragma once
#include <fmt/format.h>

#include <cmath>
#include <cstdint>
#include <iterator>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace moerun::json_text {

// Pieces of JSON, appended to `out`: result lines are written without a tree in between.

template <typename... Values>
void put(std::string& out, fmt::format_string<Values...> form, Values&&... values) {
  fmt::format_to(std::back_inserter(out), form, std::forward<Values>(values)...);
}

/// A JSON string. Bytes that are no UTF-8 (they can come from an error that quotes its cause) become U+FFFD.
inline std::string json_string(std::string_view text) {
  return nlohmann::json(text).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

inline std::string string_or_null(std::string_view text) { return text.empty() ? "null" : json_string(text); }

/// The fewest digits that give the same float32 back; null where it is no finite number.
inline void put_float(float value, std::string& out) {
  if (!std::isfinite(value)) {
    out += "null";
    return;
  }
  const size_t begin = out.size();
  put(out, "{}", value);
  // Readers take "-0" for the integer 0.
  if (out.find_first_of(".e", begin) == std::string::npos) out += ".0";
}

/// "[" item "," item ... "]"
template <typename Item>
void put_list(size_t count, std::string& out, const Item& put_item) {
  out += '[';
  for (size_t i = 0; i < count; ++i) {
    if (i) out += ", ";
    put_item(i);
  }
  out += ']';
}

inline void put_floats(const std::vector<float>& values, std::string& out) {
  put_list(values.size(), out, [&](size_t i) { put_float(values[i], out); });
}

inline void put_bools(const std::vector<uint8_t>& values, std::string& out) {
  put_list(values.size(), out, [&](size_t i) { out += values[i] != 0 ? "true" : "false"; });
}

}  // namespace moerun::json_text
