#pragma once
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

namespace moerun {

/// What may stand between a parameter's tags (value_between_tags), as a structural tag's format.
struct TagValue {
  bool any_text = false;  ///< what does not have the closing tag; `format` is null
  /// Texts are held to something, and may begin or end with an end of a line.
  bool needs_own_lines = false;
  nlohmann::ordered_json format = nullptr;
};

/// Of a parameter's schema within `root`, an enforceable_schema. `end_tag` closes values. Throws BadInput: a
/// clause about what texts between tags cannot be held to ("a text that may also be a number, …").
TagValue tag_value_of(const nlohmann::ordered_json& schema, const nlohmann::ordered_json& root,
                      std::string_view end_tag);

/// A pattern of what `pattern` matches but for texts with `<`. Throws BadInput where it asks for one.
std::string without_less_than(std::string_view pattern);

/// A format of a structural tag: a text as it stands, or what matches a regex.
nlohmann::ordered_json const_format(std::string_view text);
nlohmann::ordered_json regex_format(const std::string& pattern);

}  // namespace moerun
