#include "io/openai_tools.h"

#include <algorithm>
#include <set>
#include <string>

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
  if (function.value("strict", Json()) == true)
    add_fault(record,
              fmt::format("{}.function.strict is not supported other than as false: arguments are what "
                          "the model writes",
                          where));
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
  const Json choice = body.value("tool_choice", Json("auto"));
  if (choice != "auto" && choice != "none")
    add_fault(record,
              fmt::format("body.tool_choice is not supported other than as \"auto\" or \"none\": {} would "
                          "need every answer to be a call",
                          shown(choice)));
  if (tools.empty() || choice == "none") return false;
  record.tools = tools.dump();
  return true;
}

}  // namespace moerun
