#include "io/openai_tools.h"

#include <algorithm>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "io/json_line.h"
#include "io/row_reader.h"

namespace moerun {

namespace {

/// OpenAI's: letters, digits, underscores and dashes, at most 64.
bool is_function_name(const Json& name) {
  constexpr size_t kMost = 64;
  const auto is_part = [](unsigned char c) {
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || c == '-';
  };
  if (!name.is_string()) return false;
  const auto& text = name.get_ref<const std::string&>();
  return !text.empty() && text.size() <= kMost && std::all_of(text.begin(), text.end(), is_part);
}

void check_tool(const Json& tool, size_t index, std::set<std::string>& names, PromptRecord& record) {
  const std::string where = fmt::format("body.tools[{}]", index);
  if (!tool.is_object() || tool.value("type", Json()) != "function" || !tool.contains("function") ||
      !tool["function"].is_object())
    return add_fault(record,
                     where + " " + must_be("{\"type\": \"function\", \"function\": {\"name\": …}}", tool));
  const Json& function = tool["function"];
  const Json name = function.value("name", Json());
  if (!is_function_name(name))
    return add_fault(
        record, fmt::format("{}.function.name {}", where, must_be("1 to 64 letters, digits, _ and -", name)));
  if (!names.insert(name.get<std::string>()).second)
    add_fault(record, fmt::format("{}.function.name {} is an earlier tool's", where, shown(name)));
  const Json parameters = function.value("parameters", Json());
  if (!parameters.is_null() && !parameters.is_object())
    add_fault(record, fmt::format("{}.function.parameters {}", where,
                                  must_be("a JSON Schema, an object", parameters)));
  const Json strict = function.value("strict", Json());
  if (!strict.is_null() && !strict.is_boolean())
    add_fault(record, fmt::format("{}.function.strict {}", where, must_be("true or false", strict)));
}

/// What `tool_choice` asks for.
struct Choice {
  bool none = false, required = false, named = false;
  std::optional<std::vector<std::string>> functions;  ///< which may be called; none: all
};

std::string function_of(const Json& entry) {
  const Json function = entry.is_object() ? entry.value("function", Json()) : Json();
  const Json name = function.is_object() ? function.value("name", Json()) : Json();
  const bool typed = entry.is_object() && entry.value("type", Json("function")) == "function";
  return typed && name.is_string() ? name.get<std::string>() : "";
}

/// OpenAI's {"type": "allowed_tools", "allowed_tools": {"mode": …, "tools": […]}}.
std::string read_allowed_tools(const Json& choice, Choice& out) {
  const Json allowed = choice.value("allowed_tools", Json());
  const Json mode = allowed.is_object() ? allowed.value("mode", Json()) : Json();
  const Json list = allowed.is_object() ? allowed.value("tools", Json()) : Json();
  if ((mode != "auto" && mode != "required") || !list.is_array() || list.empty())
    return must_be("an object with a mode (\"auto\" or \"required\") and a list of tools", allowed);
  out.required = mode == "required";
  out.functions.emplace();
  for (const Json& entry : list) {
    if (function_of(entry).empty())
      return "tools has " + shown(entry) + R"(, which is not {"type": "function", "function": {"name": …}})";
    out.functions->push_back(function_of(entry));
  }
  return "";
}

/// Returns what is wrong with it, beginning with a member's name or a verb.
std::string read_choice(const Json& value, Choice& out) {
  out.none = value == "none";
  out.required = value == "required";
  if (value == "auto" || out.none || out.required) return "";
  if (value.is_object() && value.value("type", Json()) == "allowed_tools") {
    const std::string wrong = read_allowed_tools(value, out);
    return wrong.empty() ? "" : ".allowed_tools " + wrong;
  }
  out.named = !function_of(value).empty();
  out.functions = {function_of(value)};
  return out.named
             ? ""
             : " " +
                   must_be(R"("none", "auto", "required", {"type": "function", "function": {"name": …}} or )"
                           R"({"type": "allowed_tools", …})",
                           value);
}

/// The tools that may be called; faults of names that are none's.
Json callable(const Json& tools, const Choice& choice, PromptRecord& record) {
  if (!choice.functions) return tools;
  Json kept = Json::array();
  for (const std::string& name : *choice.functions) {
    const auto found =
        std::find_if(tools.begin(), tools.end(), [&](const Json& tool) { return function_of(tool) == name; });
    if (found == tools.end())
      add_fault(record,
                fmt::format("body.tool_choice names the function \"{}\", which is not in body.tools", name));
    else if (std::find(kept.begin(), kept.end(), *found) == kept.end())
      kept.push_back(*found);
  }
  return kept;
}

bool is_strict(const Json& tool) { return tool["function"].value("strict", Json()) == true; }

/// Where calls are to be more than what the model writes, answers are held to them.
void hold_calls(const Json& tools, const Choice& choice, bool parallel, PromptRecord& record) {
  const bool forced = choice.required || choice.named;
  if (!forced && parallel && !choice.functions && std::none_of(tools.begin(), tools.end(), is_strict)) return;
  if (record.sampling.form.kind != AnswerForm::Kind::any)
    return add_fault(record,
                     fmt::format("body.{} has no place beside response_format or structured_outputs, which "
                                 "say what the whole answer is",
                                 forced || choice.functions ? "tool_choice"
                                 : parallel                 ? "tools with strict functions"
                                                            : "parallel_tool_calls"));
  const char* const mode = choice.named ? "named" : choice.required ? "required" : "auto";
  record.tools = Json{{"mode", mode}, {"parallel", parallel && !choice.named}, {"tools", tools}}.dump();
}

}  // namespace

void read_past_calls(Json& messages, PromptRecord& record) {
  if (!messages.is_array()) return;  // read_conversation says so
  for (size_t i = 0; i < messages.size(); ++i) {
    if (!messages[i].is_object() || !messages[i].contains("tool_calls")) continue;
    Json& calls = messages[i]["tool_calls"];
    for (size_t j = 0; calls.is_array() && j < calls.size(); ++j) {
      if (!calls[j].is_object() || !calls[j].contains("function") || !calls[j]["function"].is_object() ||
          !calls[j]["function"].contains("arguments"))
        continue;
      Json& arguments = calls[j]["function"]["arguments"];
      if (!arguments.is_string()) continue;
      const std::string text = arguments.get<std::string>();
      JsonLine read = text.empty() ? JsonLine{.value = Json::object()} : read_json_line(text);
      if (!read.fault.empty() || !read.value.is_object())
        add_fault(record, fmt::format("messages[{}].tool_calls[{}].function.arguments {}", i, j,
                                      must_be("a JSON object in a text", arguments)));
      else
        arguments = std::move(read.value);
      if (read.prompt_token_ids) arguments["prompt_token_ids"] = *read.prompt_token_ids;
    }
  }
}

bool read_tools(const Json& body, PromptRecord& record) {
  const Json tools = body.value("tools", Json::array());
  if (!tools.is_array()) {
    add_fault(record, "body.tools " + must_be("a list", tools));
    return false;
  }
  std::set<std::string> names;
  for (size_t i = 0; i < tools.size(); ++i) check_tool(tools[i], i, names, record);
  Choice choice;
  if (const std::string wrong = read_choice(body.value("tool_choice", Json("auto")), choice); !wrong.empty())
    add_fault(record, "body.tool_choice" + wrong);
  const Json parallel = body.value("parallel_tool_calls", Json(true));
  if (!parallel.is_boolean())
    add_fault(record, "body.parallel_tool_calls " + must_be("true or false", parallel));
  if (tools.empty() && (choice.required || choice.functions))
    add_fault(record, "body.tool_choice asks for a call, and there are no body.tools");
  if (tools.empty() || choice.none || !record.error.empty()) return false;
  const Json kept = callable(tools, choice, record);
  record.tools = kept.dump();
  if (record.error.empty()) hold_calls(kept, choice, parallel.get<bool>(), record);
  return true;
}

}  // namespace moerun
