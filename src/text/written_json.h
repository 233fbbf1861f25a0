#pragma once
#include <cstddef>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

namespace moerun {

/// JSON as models write it: strings may have control characters as they are (a tab, an end of line), which
/// JSON would have escaped. Also what nlohmann::json cannot hold is JSON here: numbers beyond doubles, halves
/// of surrogate pairs.
struct WrittenJson {
  std::string text;      ///< as it was spelled, but with control characters escaped: sound JSON
  nlohmann::json value;  ///< discarded where it is no JSON; what cannot be held is replaced by its like
};
WrittenJson read_written_json(std::string_view written);

/// Behind the JSON value that begins at `at`; the text's end where it does not end.
size_t end_of_json_value(std::string_view text, size_t at);

/// A member of a JSON object as it is spelled there; the last of this name. The text is sound JSON.
std::string_view json_member(std::string_view object, std::string_view name);

}  // namespace moerun
