#include "text/tool_schema.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "text/space.h"
#include "text/written_json.h"

namespace moerun {

namespace {

using Json = nlohmann::ordered_json;

// A schema may refer to itself without end.
constexpr int kDeepest = 16;
constexpr size_t kMostAlternatives = 4096;

/// What `$ref` points to, or null.
const Json* followed(const Json& ref, const Json& root) {
  const std::string text = ref.is_string() ? ref.get<std::string>() : "";
  if (!text.starts_with('#')) return nullptr;
  try {
    const Json::json_pointer at(text.substr(1));
    return root.contains(at) ? &root.at(at) : nullptr;
  } catch (const nlohmann::json::exception&) {
    return nullptr;
  }
}

std::string type_of(const Json& value) {
  return value.is_string()           ? "string"
         : value.is_boolean()        ? "boolean"
         : value.is_number_integer() ? "integer"
         : value.is_number()         ? "number"
         : value.is_null()           ? "null"
         : value.is_array()          ? "array"
                                     : "object";
}

class Alternatives {
 public:
  explicit Alternatives(const Json& root) : root_(root) {}

  void add(const Json& schema, int depth) {
    if (depth > kDeepest || found.size() > kMostAlternatives || !schema.is_object()) {
      found.push_back(Json::object());
    } else if (const Json* const ref = find_member(schema, "$ref")) {
      const Json* const target = followed(*ref, root_);
      add(target ? *target : Json(), depth + 1);
    } else if (const Json* const list = list_of(schema)) {
      for (const Json& one : *list) add(with_type_of(schema, one), depth + 1);
    } else if (const Json* const values = find_member(schema, "enum"); values && values->is_array()) {
      for (const Json& value : *values) found.push_back({{"const", value}});
    } else if (const Json* const value = find_member(schema, "const")) {
      found.push_back({{"const", *value}});
    } else {
      add_types(schema);
    }
  }

  std::vector<Json> found;

 private:
  static const Json* list_of(const Json& schema) {
    for (const char* const name : {"anyOf", "oneOf", "allOf"})
      if (const Json* const list = find_member(schema, name); list && list->is_array()) return list;
    return nullptr;
  }

  /// A type beside alternatives is each one's.
  static Json with_type_of(const Json& schema, const Json& one) {
    const Json* const type = find_member(schema, "type");
    Json own = one;
    if (type && own.is_object() && !own.contains("type")) own["type"] = *type;
    return own;
  }

  void add_types(const Json& schema) {
    Json types = schema.value("type", Json());
    if (types.is_string()) types = Json::array({types});
    if (!types.is_array()) {
      types = Json::array();
      if (schema.contains("properties") || schema.contains("additionalProperties")) types.push_back("object");
      if (schema.contains("items") || schema.contains("prefixItems")) types.push_back("array");
    }
    for (const Json& type : types) {
      found.push_back(schema);
      found.back()["type"] = type;
    }
    if (types.empty()) found.push_back(Json::object());
  }

  const Json& root_;
};

/// A whole number of any size.
bool is_integer(std::string_view text) {
  if (text.starts_with('-')) text.remove_prefix(1);
  return !text.empty() && text.find_first_not_of("0123456789") == std::string_view::npos;
}

/// Whether JSON of this kind, spelled like this, is one of the types.
bool is_of(const nlohmann::json& value, std::string_view text, const std::set<std::string>& types) {
  const auto has = [&](const char* type) { return types.contains(type); };
  if (value.is_null()) return has("null");
  if (value.is_boolean()) return has("boolean");
  if (value.is_number() && is_integer(text)) return has("integer") || has("number");
  if (value.is_number()) return has("number");
  if (value.is_array()) return has("array");
  return value.is_object() && has("object");
}

}  // namespace

const Json* find_member(const Json& schema, const char* name) {
  const auto found = schema.find(name);
  return found == schema.end() ? nullptr : &*found;
}

std::vector<Json> alternatives_of(const Json& schema, const Json& root) {
  Alternatives alternatives(root);
  alternatives.add(schema, 0);
  return std::move(alternatives.found);
}

std::set<std::string> types_of_alternatives(const std::vector<Json>& alternatives) {
  std::set<std::string> types;
  for (const Json& one : alternatives) {
    if (const Json* const value = find_member(one, "const")) types.insert(type_of(*value));
    if (const Json* const type = find_member(one, "type"); type && type->is_string())
      types.insert(type->get<std::string>());
  }
  return types;
}

std::string value_between_tags(std::string_view raw, const std::set<std::string>& types) {
  const std::string_view inner = trimmed(raw);
  if (!types.empty() && types != std::set<std::string>{"string"}) {
    WrittenJson read = read_written_json(inner);
    if (!read.value.is_discarded() && is_of(read.value, inner, types)) return std::move(read.text);
    for (const auto& [python, word] :
         {std::pair{"True", "true"}, std::pair{"False", "false"}, std::pair{"None", "null"}})
      if (inner == python && is_of(nlohmann::json::parse(word), word, types)) return word;
  }
  return nlohmann::json(std::string(raw)).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

}  // namespace moerun
