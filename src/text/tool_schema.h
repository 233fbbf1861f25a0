#pragma once
#include <nlohmann/json_fwd.hpp>
#include <set>
#include <string>
#include <string_view>
#include <vector>

namespace moerun {

// A function's parameters, as far as formats of calls that are no JSON look at them. Pure.

/// A member of a schema, or null.
const nlohmann::ordered_json* find_member(const nlohmann::ordered_json& schema, const char* name);

/// What a parameter's schema lets it be, each by itself: `$ref` into `root` is followed, `anyOf`, `oneOf`,
/// `allOf`, lists of types and of values are taken apart. Each is an object with one `type`, or with `const`;
/// one without either, and one that is no schema of an object, may be anything.
std::vector<nlohmann::ordered_json> alternatives_of(const nlohmann::ordered_json& schema,
                                                    const nlohmann::ordered_json& root);

/// The types of what a parameter can be; empty: the schema does not say.
std::set<std::string> types_of_alternatives(const std::vector<nlohmann::ordered_json>& alternatives);

/// A value between tags as JSON: by its types where it reads as one of them, or as the text that it is. As
/// vLLM takes it, and with Python's True, False and None, which models write.
std::string value_between_tags(std::string_view raw, const std::set<std::string>& types);

}  // namespace moerun
