#include "text/tool_calls.h"

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>
#include <utility>

#include "text/space.h"
#include "text/tool_schema.h"
#include "text/written_json.h"

namespace moerun {

namespace {

using nlohmann::json;

constexpr std::string_view kEnd = "</tool_call>";

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
  /// The next so many bytes.
  std::string_view take(size_t count) {
    const std::string_view taken = rest_.substr(0, count);
    rest_.remove_prefix(count);
    return taken;
  }
  bool done() const { return trimmed(rest_).empty(); }
  std::string_view rest() const { return rest_; }

 private:
  std::string_view rest_;
};

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

using Calls = std::vector<ToolCall>;

bool read_json_call(Cursor& in, const ToolFunctions& functions, Calls& calls) {
  const WrittenJson call = read_written_json(in.take(end_of_json_value(in.rest(), 0)));
  if (!call.value.is_object()) return false;
  const auto name = call.value.find("name"), arguments = call.value.find("arguments");
  if (name == call.value.end() || !name->is_string() || !functions.has(name->get_ref<const std::string&>()))
    return false;
  const bool none = arguments == call.value.end();
  if (!none && !arguments->is_object()) return false;
  calls.push_back({name->get<std::string>(), none ? "{}" : std::string(json_member(call.text, "arguments"))});
  return true;
}

/// What stands before `end_tag`, which is taken too. JSON may have it within a text.
std::optional<std::string_view> take_value(Cursor& in, std::string_view end_tag,
                                           const ToolFunctions::Types& types) {
  const std::string_view rest = in.rest();
  const size_t begin = std::min(rest.find_first_not_of(kSpace), rest.size());
  const char first = begin < rest.size() ? rest[begin] : '\0';
  if ((first == '{' && types.contains("object")) || (first == '[' && types.contains("array"))) {
    Cursor behind(rest.substr(end_of_json_value(rest, begin)));
    behind.skip_space();
    if (behind.skip(end_tag))
      return in.take(rest.size() - behind.rest().size())
          .substr(0, rest.size() - behind.rest().size() - end_tag.size());
  }
  return in.until(end_tag);
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
    const ToolFunctions::Types types = functions.types_of(function, *key);
    const auto value = take_value(in, "</parameter>", types);
    if (!value) return false;
    arguments.add(*key, value_between_tags(without_line_ends(*value), types));
  }
  if (!in.skip(tags.function_end)) return false;
  calls.push_back({std::string(function), arguments.take()});
  return true;
}

bool read_glm_call(Cursor& in, const ToolFunctions& functions, Calls& calls) {
  const std::string_view rest = in.rest();
  const std::string_view function =
      trimmed(in.take(std::min({rest.find("<arg_key>"), rest.find(kEnd), rest.size()})));
  if (!functions.has(function)) return false;
  Arguments arguments;
  for (in.skip_space(); in.skip("<arg_key>"); in.skip_space()) {
    const auto key = in.until("</arg_key>");
    in.skip_space();
    if (!key || !in.skip("<arg_value>")) return false;
    const ToolFunctions::Types types = functions.types_of(function, trimmed(*key));
    const auto value = take_value(in, "</arg_value>", types);
    if (!value) return false;
    arguments.add(trimmed(*key), value_between_tags(*value, types));
  }
  calls.push_back({std::string(function), arguments.take()});
  return true;
}

/// What stands behind `<tool_call>`, whichever format it is.
bool read_call(Cursor& in, const ToolFunctions& functions, Calls& calls) {
  in.skip_space();
  if (in.rest().starts_with('{')) return read_json_call(in, functions, calls);
  if (in.rest().starts_with(kCoder.function)) return read_tagged_call(in, kCoder, functions, calls);
  return read_glm_call(in, functions, calls);
}

bool read_minimax_calls(Cursor& in, const ToolFunctions& functions, Calls& calls) {
  do {
    in.skip_space();
    if (!read_tagged_call(in, kMiniMax, functions, calls)) return false;
    in.skip_space();
  } while (in.rest().starts_with(kMiniMax.function));
  return true;
}

struct Markers {
  std::string_view begin, end;
  bool (*read)(Cursor& in, const ToolFunctions& functions, Calls& calls);
};
constexpr std::array kMarkers{Markers{"<tool_call>", kEnd, read_call},
                              Markers{"<minimax:tool_call>", "</minimax:tool_call>", read_minimax_calls}};

/// Reads what stands from a marker on. An answer may end without the marker of the end: the model's
/// end-of-sequence token came in its place.
bool read_marked(Cursor& in, const Markers& markers, const ToolFunctions& functions, Calls& calls) {
  in.skip(markers.begin);
  if (!markers.read(in, functions, calls)) return false;
  if (in.done())
    in.take(in.rest().size());
  else
    in.skip_space();
  return in.rest().empty() || in.skip(markers.end);
}

/// The calls between markers of one kind; none where there are none or one cannot be read.
std::optional<ToolCalls> find_marked(std::string_view text, const Markers& markers,
                                     const ToolFunctions& functions) {
  ToolCalls out{.begin = text.find(markers.begin), .calls = {}};
  for (size_t at = out.begin; at != std::string_view::npos; at = text.find(markers.begin, out.end)) {
    const std::string_view said = at > out.begin ? text.substr(out.end, at - out.end) : std::string_view();
    const size_t first = out.calls.size();
    Cursor in(text.substr(at));
    if (!read_marked(in, markers, functions, out.calls)) return std::nullopt;
    if (!trimmed(said).empty()) out.calls.at(first).said = said;
    out.end = text.size() - in.rest().size();
  }
  if (out.calls.empty()) return std::nullopt;
  return out;
}

}  // namespace

ToolFormat tool_format_of(std::string_view chat_template) {
  const auto has = [&](std::string_view marker) {
    return chat_template.find(marker) != std::string_view::npos;
  };
  if (has("<minimax:tool_call>")) return ToolFormat::minimax;
  if (!has("<tool_call>")) return ToolFormat::none;
  return has(kCoder.function) ? ToolFormat::coder : has("<arg_key>") ? ToolFormat::glm : ToolFormat::hermes;
}

ToolFunctions::ToolFunctions(std::string_view tools) {
  using Json = nlohmann::ordered_json;
  Json list = Json::parse(tools, nullptr, false);
  if (list.is_object()) {
    named_ = list.value("mode", Json()) == "named";
    list = list.value("tools", Json());
  }
  if (!list.is_array()) return;
  for (const Json& tool : list) {
    if (!tool.is_object() || !tool.contains("function") || !tool["function"].is_object()) continue;
    const Json& function = tool["function"];
    if (!function.contains("name") || !function["name"].is_string()) continue;
    auto& parameters = functions_[function["name"].get<std::string>()];
    const Json schema = function.value("parameters", Json());
    if (!schema.is_object() || !schema.contains("properties") || !schema["properties"].is_object()) continue;
    for (const auto& [name, property] : schema["properties"].items())
      parameters[name] = types_of_alternatives(alternatives_of(property, schema));
  }
}

ToolFunctions::Types ToolFunctions::types_of(std::string_view function, std::string_view parameter) const {
  const auto found = functions_.find(function);
  if (found == functions_.end()) return {};
  const auto types = found->second.find(parameter);
  return types == found->second.end() ? Types() : types->second;
}

std::optional<ToolCalls> find_tool_calls(std::string_view text, const ToolFunctions& functions) {
  if (functions.empty()) return std::nullopt;
  for (const Markers& markers : kMarkers)
    if (auto found = find_marked(text, markers, functions)) return found;
  return std::nullopt;
}

}  // namespace moerun
