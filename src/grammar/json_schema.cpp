#include "grammar/json_schema.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <nlohmann/json.hpp>
#include <vector>

#include "moerun/error.h"

namespace moerun {

namespace {

using Json = nlohmann::ordered_json;

// Each of the groups below says what a value must be; xgrammar looks at the first that it finds.
constexpr std::array kInterpretations{"$ref", "const", "enum", "anyOf", "oneOf", "allOf"};
constexpr std::array kAssertions{"type",
                                 "minimum",
                                 "maximum",
                                 "exclusiveMinimum",
                                 "exclusiveMaximum",
                                 "multipleOf",
                                 "minLength",
                                 "maxLength",
                                 "pattern",
                                 "items",
                                 "prefixItems",
                                 "unevaluatedItems",
                                 "minItems",
                                 "maxItems",
                                 "properties",
                                 "patternProperties",
                                 "additionalProperties",
                                 "unevaluatedProperties",
                                 "propertyNames",
                                 "required",
                                 "minProperties",
                                 "maxProperties"};
// What no grammar of xgrammar's holds to.
constexpr std::array kUnkept{"not",
                             "if",
                             "then",
                             "else",
                             "contains",
                             "minContains",
                             "maxContains",
                             "dependentRequired",
                             "dependencies",
                             "$dynamicRef",
                             "$recursiveRef",
                             "dependentSchemas",
                             "additionalItems"};
constexpr std::array kSchemaMaps{"$defs", "definitions", "properties", "patternProperties"};
constexpr std::array kSchemaLists{"anyOf", "oneOf", "allOf", "prefixItems"};
constexpr std::array kSchemas{"items", "unevaluatedItems", "additionalProperties", "propertyNames",
                              "unevaluatedProperties"};

// What xgrammar takes for them grows with their square: these take a second or two.
constexpr size_t kMostValues = 4096, kLongestPattern = 2000;

template <size_t kCount>
bool is_one_of(std::string_view name, const std::array<const char*, kCount>& names) {
  return std::any_of(names.begin(), names.end(), [&](const char* one) { return name == one; });
}

/// Of JSON Schema's types.
bool has_type(const Json& value, const std::string& type) {
  if (type == "integer") return value.is_number() && value.get<double>() == std::floor(value.get<double>());
  return type == "string"    ? value.is_string()
         : type == "number"  ? value.is_number()
         : type == "boolean" ? value.is_boolean()
         : type == "null"    ? value.is_null()
         : type == "array"   ? value.is_array()
         : type == "object"  ? value.is_object()
                             : false;
}

bool has_one_of_types(const Json& value, const Json& types) {
  if (types.is_string()) return has_type(value, types.get<std::string>());
  return std::any_of(types.begin(), types.end(), [&](const Json& one) {
    return one.is_string() && has_type(value, one.get<std::string>());
  });
}

class Walk {
 public:
  void schema(Json& value, const std::string& at) {
    if (value.is_boolean()) return;
    if (!value.is_object()) fail(at, "a schema is an object, or true or false");
    for (const auto& [key, unused] : value.items())
      if (is_one_of(key, kUnkept)) fail(at, fmt::format("answers cannot be held to {}", key));
    if (value.value("uniqueItems", Json(false)) == true) fail(at, "answers cannot be held to uniqueItems");
    interpretation(value, at);
    untyped(value, at);
    object(value, at);
    list(value, at);
    if (value.contains("pattern")) pattern(value["pattern"], at);
    inner(value, at);
  }

 private:
  [[noreturn]] static void fail(const std::string& at, const std::string& what) {
    throw BadInput(fmt::format("the JSON schema cannot be used: {} (at {})", what, at));
  }

  static std::vector<std::string> present(const Json& value, const auto& names, std::string_view but = "") {
    std::vector<std::string> found;
    for (const char* name : names)
      if (name != but && value.contains(name)) found.emplace_back(name);
    return found;
  }

  /// One group says what the value is; what stands beside it must say nothing more.
  static void interpretation(Json& value, const std::string& at) {
    const std::vector<std::string> groups = present(value, kInterpretations);
    if (groups.empty()) return;
    if (groups.size() > 1)
      fail(at, fmt::format("answers cannot be held to {} and {} at once", groups[0], groups[1]));
    const std::string& group = groups[0];
    if (group == "$ref") ref(value["$ref"], at);
    if (value.contains("type") && !value["type"].is_string() && !value["type"].is_array())
      fail(at, "type must be a name or a list of names");
    if (value.contains("type") && group != "$ref" && group != "allOf") push_type_down(value, group, at);
    const std::vector<std::string> beside = present(value, kAssertions);
    if (!beside.empty())
      fail(at, fmt::format("answers cannot be held to {} and {} at once", group, beside[0]));
    if (group == "allOf" && value[group].is_array() && value[group].size() != 1)
      fail(at, "answers cannot be held to an allOf of several schemas");
    if (group == "enum" && (!value[group].is_array() || value[group].empty()))
      fail(at, "enum must be a list that is not empty");
    if (group == "enum" && value[group].size() > kMostValues)
      fail(at, fmt::format("enum has {} values, and at most {} are taken", value[group].size(), kMostValues));
  }

  /// What it points to is looked at where it stands, so it must stand where schemas do.
  static void ref(const Json& value, const std::string& at) {
    const std::string text = value.is_string() ? value.get<std::string>() : "";
    const std::string first = text.starts_with("#/") ? text.substr(2, text.find('/', 2) - 2) : "";
    if (text != "#" && !is_one_of(first, kSchemaMaps) && !is_one_of(first, kSchemaLists) &&
        !is_one_of(first, kSchemas))
      fail(at, fmt::format("$ref is {}, and must be # or point into its $defs", value.dump()));
  }

  /// A type beside values or alternatives is said of each of them.
  static void push_type_down(Json& value, const std::string& group, const std::string& at) {
    const Json type = value["type"];
    if (group == "const" && !has_one_of_types(value[group], type)) fail(at, "const is not of its type");
    if (group == "enum" && value[group].is_array()) {
      Json kept = Json::array();
      for (const Json& one : value[group])
        if (has_one_of_types(one, type)) kept.push_back(one);
      value[group] = kept;
    }
    if ((group == "anyOf" || group == "oneOf") && value[group].is_array())
      for (Json& one : value[group]) {
        if (!one.is_object() || (one.contains("type") && one["type"] != type) ||
            (!one.contains("type") && !present(one, kInterpretations).empty()))
          fail(at, fmt::format("answers cannot be held to {} and type at once", group));
        one["type"] = type;
      }
    value.erase("type");
  }

  /// Without a type xgrammar takes a schema for an object's or a list's by some keywords, and else for that
  /// of any value.
  static void untyped(const Json& value, const std::string& at) {
    if (value.contains("type") || !present(value, kInterpretations).empty()) return;
    const bool known =
        !present(value, std::array{"properties", "additionalProperties", "unevaluatedProperties", "items",
                                   "prefixItems", "unevaluatedItems"})
             .empty();
    const std::vector<std::string> assertions = present(value, kAssertions);
    if (!known && !assertions.empty()) fail(at, fmt::format("{} needs a type beside it", assertions[0]));
  }

  static void object(Json& value, const std::string& at) {
    if (!may_be(value, "object", {"properties", "additionalProperties", "unevaluatedProperties"})) return;
    const bool patterns = value.contains("patternProperties"), names = value.contains("propertyNames");
    if (!value.contains("properties") && !value.contains("additionalProperties") &&
        !value.contains("unevaluatedProperties") && !patterns)
      value["additionalProperties"] = true;  // of which nothing is said
    const Json others =
        value.value("additionalProperties", value.value("unevaluatedProperties", Json(false)));
    if (patterns &&
        (value.contains("properties") || others != false || names || value["patternProperties"].size() > 1))
      fail(at, "answers cannot be held to patternProperties beside other members, or to several of them");
    if (names && value.contains("properties"))
      fail(at, "answers cannot be held to propertyNames beside properties");
    // A name may come twice where names are free, and counts once.
    if ((patterns || others != false) && (value.value("minProperties", Json(0)) > 1))
      fail(at, "answers cannot be held to minProperties above 1 where names are free");
    if (value.contains("required")) required(value, others, at);
  }

  static void required(Json& value, const Json& others, const std::string& at) {
    if (!value["required"].is_array()) fail(at, "required must be a list of names");
    for (const Json& name : value["required"]) {
      if (!name.is_string()) fail(at, "required must be a list of names");
      Json& properties = value["properties"];
      if (properties.is_null()) properties = Json::object();
      if (!properties.is_object() || properties.contains(name.get<std::string>())) continue;
      if (value.contains("patternProperties") || value.contains("propertyNames"))
        fail(at,
             fmt::format("answers cannot be held to a required {} beside patternProperties or propertyNames",
                         name.dump()));
      const bool said = value.contains("additionalProperties") || value.contains("unevaluatedProperties");
      if (said && others == false)
        fail(at, fmt::format("{} is required, and there is no such property", name.dump()));
      properties[name.get<std::string>()] = said ? others : Json(true);
    }
  }

  static void list(Json& value, const std::string& /*at*/) {
    if (!may_be(value, "array", {"items", "prefixItems", "unevaluatedItems"})) return;
    if (!value.contains("items") && !value.contains("prefixItems") && !value.contains("unevaluatedItems"))
      value["items"] = true;  // of which nothing is said
  }

  static bool may_be(const Json& value, const std::string& type, const std::vector<const char*>& keywords) {
    if (!present(value, kInterpretations).empty()) return false;
    if (!value.contains("type")) return !present(value, keywords).empty();
    const Json& types = value["type"];
    return types == type || (types.is_array() && std::find(types.begin(), types.end(), type) != types.end());
  }

  static void pattern(const Json& value, const std::string& at) {
    if (!value.is_string()) fail(at, "pattern must be a text");
    if (!is_plain_pattern(value.get_ref<const std::string&>()))
      fail(at, fmt::format("answers cannot be held to the pattern {}, whose quotes, backslashes or control "
                           "characters JSON writes with escapes",
                           value.dump()));
    if (written_out(value.get_ref<const std::string&>()) > kLongestPattern)
      fail(at, fmt::format("a pattern has more than {} characters once its repetitions are written out",
                           kLongestPattern));
  }

  void inner(Json& value, const std::string& at) {
    for (auto& [key, member] : value.items()) {
      const std::string here = fmt::format("{}/{}", at, key);
      if (is_one_of(key, kSchemaMaps) && member.is_object()) {
        for (auto& [name, one] : member.items()) schema(one, fmt::format("{}/{}", here, name));
        if (key == "patternProperties")
          for (const auto& [name, one] : member.items()) pattern(Json(name), here);
      } else if (is_one_of(key, kSchemaLists) && member.is_array()) {
        for (size_t i = 0; i < member.size(); ++i) schema(member[i], fmt::format("{}/{}", here, i));
      } else if (is_one_of(key, kSchemas)) {
        schema(member, here);
      }
    }
  }
};

/// A regex's single characters, as far as it matters which of them JSON escapes.
class PatternWalk {
 public:
  explicit PatternWalk(std::string_view pattern) : pattern_(pattern) {}

  bool plain() {
    const bool ascii = std::all_of(pattern_.begin(), pattern_.end(),
                                   [](char c) { return static_cast<unsigned char>(c) < 0x80; });
    while (at_ < pattern_.size()) {
      if (pattern_[at_] == '[') {
        if (!plain_class(ascii)) return false;
      } else if (pattern_[at_] == '.') {
        if (!ascii) return false;
        ++at_;
      } else {
        const One one = next();
        if (one.escaped || (one.wide && !ascii)) return false;
      }
    }
    return true;
  }

 private:
  struct One {
    bool escaped = false;  ///< JSON writes it with a backslash
    bool wide = false;     ///< a class of characters that has such
  };

  One next() {
    const char c = pattern_[at_++];
    if (c != '\\') return {c == '"' || static_cast<unsigned char>(c) < 0x20, false};
    if (at_ == pattern_.size()) return {};
    const char escape = pattern_[at_++];
    static constexpr std::string_view kEscaped = "\\\"nrtfvbxuc0", kWide = "SWDs";
    return {kEscaped.find(escape) != std::string_view::npos, kWide.find(escape) != std::string_view::npos};
  }

  /// A class needs one character that JSON writes as it is; xgrammar leaves the others out.
  bool plain_class(bool ascii) {
    const bool negated = pattern_.substr(at_).starts_with("[^");
    at_ += negated ? 2 : 1;
    bool plain = negated, wide = negated;
    while (at_ < pattern_.size() && pattern_[at_] != ']') {
      const One one = next();
      plain |= !one.escaped;
      wide |= one.wide || one.escaped;
    }
    ++at_;
    return plain && (ascii || !wide);
  }

  std::string_view pattern_;
  size_t at_ = 0;
};

}  // namespace

std::string enforceable_schema(const std::string& schema) {
  Json value = Json::parse(schema);
  Walk().schema(value, "#");
  return value.dump();
}

size_t written_out(std::string_view pattern) {
  constexpr size_t kMost = 1'000'000'000;
  std::vector<size_t> groups{0};  // open ones, the whole first
  size_t last = 0;                // of what a repetition would repeat
  for (size_t at = 0; at < pattern.size(); ++at) {
    const char c = pattern[at];
    if (c == '{') {
      size_t bound = 0, most = 1;
      for (++at; at < pattern.size() && pattern[at] != '}'; ++at) {
        const bool digit = pattern[at] >= '0' && pattern[at] <= '9';
        bound = digit ? std::min(bound * 10 + static_cast<size_t>(pattern[at] - '0'), kMost) : 0;
        most = std::max(most, bound);
      }
      last = std::min(last * most, kMost);
      continue;
    }
    if (c == ')' && groups.size() > 1) {
      last += groups.back();
      groups.pop_back();
      continue;
    }
    groups.back() = std::min(groups.back() + last, kMost);
    last = c == '(' || c == '|' ? 0 : 1;
    if (c == '(') groups.push_back(0);
    if (c == '\\') ++at;
    if (c == '[')
      while (at + 1 < pattern.size() && pattern[at] != ']') at += pattern[at] == '\\' ? 2 : 1;
  }
  size_t all = last;
  for (const size_t group : groups) all += group;
  return all;
}

bool is_plain_pattern(std::string_view pattern) { return PatternWalk(pattern).plain(); }

}  // namespace moerun
