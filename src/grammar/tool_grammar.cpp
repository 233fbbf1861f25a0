#include "grammar/tool_grammar.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>

#include "grammar/json_schema.h"
#include "grammar/tag_values.h"
#include "moerun/error.h"
#include "text/tool_schema.h"

namespace moerun {

namespace {

using Json = nlohmann::ordered_json;

Json sequence(Json elements) { return {{"type", "sequence"}, {"elements", std::move(elements)}}; }
Json optional(Json content) { return {{"type", "optional"}, {"content", std::move(content)}}; }
Json tag(const std::string& begin, Json content, const std::string& end) {
  return {{"type", "tag"}, {"begin", begin}, {"content", std::move(content)}, {"end", end}};
}
Json tags(Json list, bool several) {
  return {{"type", "tags_with_separator"},
          {"tags", std::move(list)},
          {"separator", "\n"},
          {"at_least_one", true},
          {"stop_after_first", !several}};
}

/// How a format with tags spells a call. Chat templates of GLM's models differ in where lines end.
struct Spelling {
  const char *call, *call_name_end, *call_end;
  const char *key, *key_end, *value, *value_end;
  enum class Lines { as_it_is, free, own } lines;  ///< behind a name, a key, a value; around a value
};
constexpr Spelling kCoder{
    "<tool_call>\n<function=", ">\n", "</function>\n</tool_call>", "<parameter=", ">\n", "", "</parameter>",
    Spelling::Lines::own};
constexpr Spelling kGlm{
    "<tool_call>",        "", "</tool_call>", "<arg_key>", "</arg_key>", "<arg_value>", "</arg_value>",
    Spelling::Lines::free};
constexpr Spelling kMiniMax{
    "<invoke name=\"",        "\">\n", "</invoke>", "<parameter name=\"", "\">", "", "</parameter>",
    Spelling::Lines::as_it_is};

constexpr char kFreeKey[] = "[^<>\"\\s]{1,64}";  // of a function of whose parameters nothing is said

/// The calls of functions in a format with tags.
class TaggedCalls {
 public:
  explicit TaggedCalls(const Spelling& spelling) : how_(spelling) {}

  Json call(const std::string& name, const Json& parameters) const {
    Json elements = Json::array();
    if (free()) elements.push_back(line_end());
    const Json* const properties = find_member(parameters, "properties");
    if (!properties) {
      elements.push_back({{"type", "star"}, {"content", free_parameter()}});
    } else {
      const Json required = parameters.value("required", Json::array());
      for (const auto& [key, schema] : properties->items()) {
        Json one = parameter(key, schema, parameters);
        const bool needed = std::find(required.begin(), required.end(), key) != required.end();
        elements.push_back(needed ? std::move(one) : optional(std::move(one)));
      }
    }
    if (elements.empty()) elements.push_back(const_format(""));
    return tag(how_.call + name + how_.call_name_end, sequence(std::move(elements)), how_.call_end);
  }

 private:
  bool free() const { return how_.lines == Spelling::Lines::free; }
  Json line_end() const { return free() ? optional(const_format("\n")) : const_format("\n"); }

  /// A value that is any text, behind what ends the key.
  Json any_text(const std::string& before) const {
    return tag(before, {{"type", "any_text"}, {"excludes", {how_.value_end}}}, how_.value_end);
  }

  Json free_parameter() const {
    Json elements{const_format(how_.key), regex_format(kFreeKey)};
    if (free()) {
      elements.push_back(const_format(how_.key_end));
      elements.push_back(line_end());
    }
    elements.push_back(any_text(free() ? how_.value : how_.key_end));
    elements.push_back(line_end());
    return sequence(std::move(elements));
  }

  Json parameter(const std::string& key, const Json& schema, const Json& parameters) const {
    if (key.empty() || key.find_first_of("<>\"\n") != std::string::npos || key.front() == ' ' ||
        key.back() == ' ')
      throw BadInput(fmt::format("its parameter {} has a name that the model's format of calls cannot spell",
                                 Json(key).dump()));
    TagValue value;
    try {
      value = tag_value_of(schema, parameters, how_.value_end);
    } catch (const BadInput& fault) {
      throw BadInput(fmt::format("the model's format of calls cannot hold its parameter {} to {}",
                                 Json(key).dump(), fault.what()));
    }
    Json elements = Json::array();
    std::string before = how_.key + key + how_.key_end;
    if (free()) {
      elements.push_back(const_format(before));
      elements.push_back(line_end());
      before = how_.value;
    }
    if (value.any_text) {
      elements.push_back(any_text(before));
    } else {
      const bool lines = how_.lines == Spelling::Lines::as_it_is && value.needs_own_lines;
      elements.push_back(const_format(before + (lines ? "\n" : "")));
      elements.push_back(std::move(value.format));
      const bool ends = lines || how_.lines == Spelling::Lines::own;
      elements.push_back(const_format((ends ? "\n" : "") + std::string(how_.value_end)));
    }
    elements.push_back(line_end());
    return sequence(std::move(elements));
  }

  const Spelling& how_;
};

/// A function's parameters as an enforceable schema of an object.
Json parameters_of(const Json& function) {
  Json parameters = function.value("parameters", Json());
  if (parameters.is_null()) parameters = {{"type", "object"}, {"properties", Json::object()}};
  if (!parameters.is_object()) throw BadInput("its parameters must be a JSON Schema, an object");
  if (!parameters.contains("type")) parameters["type"] = "object";
  if (parameters["type"] != "object") throw BadInput("its parameters must be of the type object");
  for (const char* const name : {"$ref", "anyOf", "oneOf", "allOf", "enum", "const"})
    if (parameters.contains(name))
      throw BadInput(fmt::format("its parameters must be an object's schema, without {} at its top", name));
  if (!parameters.contains("properties") && parameters.value("additionalProperties", Json()) == false)
    parameters["properties"] = Json::object();
  return Json::parse(enforceable_schema(parameters.dump()));
}

/// What formats with tags cannot hold a whole list of parameters to.
void check_for_tags(const Json& parameters) {
  for (const char* const name : {"patternProperties", "propertyNames", "minProperties", "maxProperties"})
    if (parameters.contains(name))
      throw BadInput(fmt::format("the model's format of calls cannot hold its parameters to {}", name));
  const Json others = parameters.value("additionalProperties", Json(true));
  if (!parameters.contains("properties") && others != true)
    throw BadInput("the model's format of calls cannot hold its parameters to additionalProperties");
  const std::string text = parameters.dump();
  for (size_t at = 0; (at = text.find("\"$ref\":\"", at)) != std::string::npos; ++at) {
    const std::string_view target = std::string_view(text).substr(at + 8);
    if (!target.starts_with("#/$defs/") && !target.starts_with("#/definitions/"))
      throw BadInput("the model's format of calls needs a $ref to point into $defs");
  }
}

Json call_of(const Json& function, bool held, ToolFormat format) {
  const auto name = function.at("name").get<std::string>();
  static const Json kAnything{{"type", "object"}, {"additionalProperties", true}};
  try {
    const Json parameters = held ? parameters_of(function) : kAnything;
    if (format == ToolFormat::hermes)
      return tag(fmt::format("<tool_call>\n{{\"name\": \"{}\", \"arguments\": ", name),
                 {{"type", "json_schema"}, {"json_schema", parameters}}, "}\n</tool_call>");
    check_for_tags(parameters);
    const Spelling& spelling = format == ToolFormat::coder ? kCoder
                               : format == ToolFormat::glm ? kGlm
                                                           : kMiniMax;
    return TaggedCalls(spelling).call(name, parameters);
  } catch (const BadInput& fault) {
    throw BadInput(fmt::format("answers cannot be held to calls of the function {}: {}", name, fault.what()));
  }
}

}  // namespace

std::string structural_tag_of(const std::string& held_calls, ToolFormat format) {
  if (format == ToolFormat::none)
    throw BadInput(
        "answers cannot be held to calls of functions: the model's chat template tells of none of the "
        "formats "
        "<tool_call> (Hermes, Qwen3, Qwen3-Coder, GLM) and <minimax:tool_call>");
  const Json asked = Json::parse(held_calls);
  const bool free_text = asked.at("mode") == "auto", several = asked.at("parallel").get<bool>();
  Json calls = Json::array();
  for (const Json& tool : asked.at("tools")) {
    const Json& function = tool.at("function");
    calls.push_back(call_of(function, !free_text || function.value("strict", Json()) == true, format));
  }
  std::string trigger = "<tool_call>";
  if (format == ToolFormat::minimax) {
    trigger = "<minimax:tool_call>";
    calls = Json::array({tag(trigger + "\n", tags(std::move(calls), several), "\n</minimax:tool_call>")});
  }
  Json whole;
  if (free_text)
    whole = {{"type", "triggered_tags"},
             {"triggers", {trigger}},
             {"tags", std::move(calls)},
             {"at_least_one", false},
             {"stop_after_first", !several}};
  else  // models write an empty line behind their thoughts
    whole = sequence(
        {optional(const_format("\n\n")), tags(std::move(calls), several && format != ToolFormat::minimax)});
  return Json{{"type", "structural_tag"}, {"format", std::move(whole)}}.dump();
}

}  // namespace moerun
