#include "text/tool_calls.h"

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>
#include <utility>

namespace moerun {

namespace {

using nlohmann::json;

constexpr std::string_view kSpace = " \t\r\n";

std::string_view trimmed(std::string_view text) {
  const size_t begin = text.find_first_not_of(kSpace);
  if (begin == std::string_view::npos) return {};
  return text.substr(begin, text.find_last_not_of(kSpace) - begin + 1);
}

/// A text that is taken from its beginning on.
class Cursor {
 public:
  explicit Cursor(std::string_view text) : rest_(text) {}

  void skip_space() { rest_.remove_prefix(std::min(rest_.find_first_not_of(kSpace), rest_.size())); }
  bool skip(std::string_view word) {
    if (!rest_.starts_with(word)) return false;
    rest_.remove_prefix(word.size());
    return true;
  }
  /// All before `word`, which is taken too; none where it does not come.
  std::optional<std::string_view> until(std::string_view word) {
    const size_t at = rest_.find(word);
    if (at == std::string_view::npos) return std::nullopt;
    const std::string_view before = rest_.substr(0, at);
    rest_.remove_prefix(at + word.size());
    return before;
  }
  bool done() const { return trimmed(rest_).empty(); }
  std::string_view rest() const { return rest_; }

 private:
  std::string_view rest_;
};

void add_types(const json& schema, ToolFunctions::Types& types) {
  if (!schema.is_object()) return;
  if (const auto type = schema.find("type"); type != schema.end()) {
    if (type->is_string()) types.insert(type->get<std::string>());
    if (type->is_array())
      for (const json& one : *type)
        if (one.is_string()) types.insert(one.get<std::string>());
  }
  for (const char* const name : {"anyOf", "oneOf", "allOf"})
    if (const auto options = schema.find(name); options != schema.end() && options->is_array())
      for (const json& one : *options) add_types(one, types);
  // A choice of values says their types.
  if (const auto values = schema.find("enum"); types.empty() && values != schema.end() && values->is_array())
    for (const json& one : *values)
      types.insert(one.is_string()           ? "string"
                   : one.is_boolean()        ? "boolean"
                   : one.is_number_integer() ? "integer"
                   : one.is_number()         ? "number"
                   : one.is_null()           ? "null"
                                             : "object");
}

/// Whether JSON of this kind is one of the types.
bool is_of(const json& value, const ToolFunctions::Types& types) {
  const auto has = [&](const char* type) { return types.contains(type); };
  if (value.is_null()) return has("null");
  if (value.is_boolean()) return has("boolean");
  if (value.is_number_integer()) return has("integer") || has("number");
  if (value.is_number()) return has("number");
  if (value.is_array()) return has("array");
  return value.is_object() && has("object");
}

/// A value between tags as JSON: by its schema, or as the text that it is.
std::string value_json(std::string_view raw, const ToolFunctions::Types& types) {
  const std::string_view inner = trimmed(raw);
  if (!types.empty() && types != ToolFunctions::Types{"string"}) {
    const json value = json::parse(inner, nullptr, false);
    if (!value.is_discarded() && is_of(value, types)) return std::string(inner);
    // As Python writes them, which models do.
    for (const auto& [python, word] :
         {std::pair{"True", "true"}, std::pair{"False", "false"}, std::pair{"None", "null"}})
      if (inner == python && is_of(json::parse(word), types)) return word;
  }
  return json(std::string(raw)).dump(-1, ' ', false, json::error_handler_t::replace);
}

/// An object in the making, members in the order in which they were written.
class Arguments {
 public:
  void add(std::string_view key, const std::string& value) {
    text_ += text_.size() > 1 ? ", " : "";
    text_ += json(std::string(key)).dump(-1, ' ', false, json::error_handler_t::replace) + ": " + value;
  }
  std::string take() { return std::move(text_) + "}"; }

 private:
  std::string text_ = "{";
};

/// Behind a JSON value that begins at `at`. The text is sound JSON.
size_t end_of_value(std::string_view text, size_t at) {
  size_t depth = 0;
  for (bool in_string = false; at < text.size(); ++at) {
    const char c = text[at];
    if (in_string) {
      if (c == '\\') ++at;
      if (c == '"') in_string = false;
      if (c == '"' && depth == 0) return at + 1;
    } else if (c == '"') {
      in_string = true;
    } else if (c == '{' || c == '[') {
      ++depth;
    } else if (c == '}' || c == ']') {
      if (depth == 0) return at;
      if (--depth == 0) return at + 1;
    } else if (depth == 0 && (c == ',' || kSpace.find(c) != std::string_view::npos)) {
      return at;
    }
  }
  return at;
}

/// A member of a JSON object as it is spelled there; the last of this name. The text is sound JSON.
std::string_view member(std::string_view object, std::string_view name) {
  std::string_view found;
  for (size_t at = object.find('{') + 1; (at = object.find('"', at)) != std::string_view::npos;) {
    const size_t key_end = end_of_value(object, at);
    const std::string key = json::parse(object.substr(at, key_end - at)).get<std::string>();
    const size_t begin = object.find_first_not_of(kSpace, object.find(':', key_end) + 1);
    at = end_of_value(object, begin);
    if (key == name) found = object.substr(begin, at - begin);
  }
  return found;
}

using Calls = std::vector<ToolCall>;

bool read_json_call(std::string_view block, const ToolFunctions& functions, Calls& calls) {
  const json call = json::parse(block, nullptr, false);
  if (call.is_discarded() || !call.is_object()) return false;
  const auto name = call.find("name"), arguments = call.find("arguments");
  if (name == call.end() || !name->is_string() || !functions.has(name->get_ref<const std::string&>()))
    return false;
  if (arguments != call.end() && !arguments->is_object()) return false;
  calls.push_back(
      {name->get<std::string>(), arguments == call.end() ? "{}" : std::string(member(block, "arguments"))});
  return true;
}

/// Values of Qwen3-Coder and MiniMax stand on lines of their own.
std::string_view without_line_ends(std::string_view value) {
  if (value.starts_with('\n')) value.remove_prefix(1);
  if (value.ends_with('\n')) value.remove_suffix(1);
  return value;
}

/// `<function=NAME>…</function>`, or `<invoke name="NAME">…</invoke>`, and their parameters.
struct Tags {
  std::string_view function, parameter, name_end, function_end;
};
constexpr Tags kCoder{"<function=", "<parameter=", ">", "</function>"};
constexpr Tags kMiniMax{"<invoke name=\"", "<parameter name=\"", "\">", "</invoke>"};

bool read_tagged_call(Cursor& in, const Tags& tags, const ToolFunctions& functions, Calls& calls) {
  if (!in.skip(tags.function)) return false;
  const auto name = in.until(tags.name_end);
  if (!name || !functions.has(trimmed(*name))) return false;
  const std::string_view function = trimmed(*name);
  Arguments arguments;
  for (in.skip_space(); in.skip(tags.parameter); in.skip_space()) {
    const auto key = in.until(tags.name_end);
    if (!key) return false;
    const auto value = in.until("</parameter>");
    if (!value) return false;
    arguments.add(*key, value_json(without_line_ends(*value), functions.types_of(function, *key)));
  }
  if (!in.skip(tags.function_end)) return false;
  calls.push_back({std::string(function), arguments.take()});
  return true;
}

bool read_glm_call(std::string_view block, const ToolFunctions& functions, Calls& calls) {
  const size_t tag = std::min(block.find("<arg_key>"), block.size());
  const std::string_view function = trimmed(block.substr(0, tag));
  if (!functions.has(function)) return false;
  Cursor in(block.substr(tag));
  Arguments arguments;
  for (in.skip_space(); in.skip("<arg_key>"); in.skip_space()) {
    const auto key = in.until("</arg_key>");
    in.skip_space();
    if (!key || !in.skip("<arg_value>")) return false;
    const auto value = in.until("</arg_value>");
    if (!value) return false;
    arguments.add(trimmed(*key), value_json(*value, functions.types_of(function, trimmed(*key))));
  }
  if (!in.done()) return false;
  calls.push_back({std::string(function), arguments.take()});
  return true;
}

/// What stands between `<tool_call>` and `</tool_call>`, whichever format it is.
bool read_block(std::string_view block, const ToolFunctions& functions, Calls& calls) {
  block = trimmed(block);
  if (block.starts_with('{')) return read_json_call(block, functions, calls);
  if (!block.starts_with(kCoder.function)) return read_glm_call(block, functions, calls);
  Cursor in(block);
  return read_tagged_call(in, kCoder, functions, calls) && in.done();
}

bool read_minimax_block(std::string_view block, const ToolFunctions& functions, Calls& calls) {
  Cursor in(block);
  do {
    in.skip_space();
    if (!read_tagged_call(in, kMiniMax, functions, calls)) return false;
  } while (!in.done());
  return true;
}

struct Format {
  std::string_view begin, end;
  bool (*read)(std::string_view block, const ToolFunctions& functions, Calls& calls);
};
constexpr std::array kFormats{Format{"<tool_call>", "</tool_call>", read_block},
                              Format{"<minimax:tool_call>", "</minimax:tool_call>", read_minimax_block}};

/// The end of the block that begins at `begin`, before its end marker. An answer may end without one: the
/// model's end-of-sequence token came in its place.
size_t end_of_block(std::string_view text, size_t begin, const Format& format) {
  return std::min(text.find(format.end, begin), text.size());
}

}  // namespace

ToolFunctions::ToolFunctions(std::string_view tools) {
  const json list = json::parse(tools, nullptr, false);
  if (!list.is_array()) return;
  for (const json& tool : list) {
    if (!tool.is_object() || !tool.contains("function") || !tool["function"].is_object()) continue;
    const json& function = tool["function"];
    if (!function.contains("name") || !function["name"].is_string()) continue;
    auto& parameters = functions_[function["name"].get<std::string>()];
    const json schema = function.value("parameters", json());
    if (!schema.is_object() || !schema.contains("properties") || !schema["properties"].is_object()) continue;
    for (const auto& [name, property] : schema["properties"].items()) add_types(property, parameters[name]);
  }
}

ToolFunctions::Types ToolFunctions::types_of(std::string_view function, std::string_view parameter) const {
  const auto found = functions_.find(function);
  if (found == functions_.end()) return {};
  const auto types = found->second.find(parameter);
  return types == found->second.end() ? Types() : types->second;
}

std::optional<ToolCalls> find_tool_calls(std::string_view text, const ToolFunctions& functions) {
  for (const Format& format : kFormats) {
    ToolCalls out{.begin = text.find(format.begin)};
    if (functions.empty() || out.begin == std::string_view::npos) continue;
    for (size_t at = out.begin; at != std::string_view::npos; at = text.find(format.begin, out.end)) {
      const size_t begin = at + format.begin.size(), end = end_of_block(text, begin, format);
      if (!format.read(text.substr(begin, end - begin), functions, out.calls)) return std::nullopt;
      out.end = std::min(end + format.end.size(), text.size());
    }
    return out;
  }
  return std::nullopt;
}

}  // namespace moerun
