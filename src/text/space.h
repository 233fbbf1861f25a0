#pragma once
#include <string_view>

namespace moerun {

/// JSON's space, which is also what stands around the parts of an answer.
inline constexpr std::string_view kSpace = " \t\r\n";

/// Without the space at both ends.
inline std::string_view trimmed(std::string_view text) {
  const size_t begin = text.find_first_not_of(kSpace);
  if (begin == std::string_view::npos) return {};
  return text.substr(begin, text.find_last_not_of(kSpace) - begin + 1);
}

}  // namespace moerun
