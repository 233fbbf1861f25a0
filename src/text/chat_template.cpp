#include "text/chat_template.h"

#include <fmt/format.h>

#include <fstream>
#include <iterator>
#include <optional>

#include "moerun/error.h"
#include "text/checksum.h"
#include "text/python_json.h"

namespace moerun {
namespace {

using nlohmann::ordered_json;

/// SHA-256 of the template texts that qwen3_prompt() renders. The two differ in what they do with a content
/// or a reasoning_content that is no string; those are refused here.
constexpr std::string_view kQwen3Templates[] = {
    "87a2728cb8dc9fe424d624542f6060ec05a1d285ebbec578bb078900e33396b5",  // Qwen3, April 2025
    "a55ee1b1660128b7098723e0abcd92caa0788061051c62d51cbe87d9cf1974d8",  // with `message.content is string`
};

constexpr std::string_view kInstead = "give `prompt` or `prompt_token_ids` instead of `messages`";

std::string_view strip_left(std::string_view text) {
  return text.substr(std::min(text.find_first_not_of('\n'), text.size()));
}

std::string_view strip_right(std::string_view text) {
  return text.substr(0, text.find_last_not_of('\n') + 1);
}

/// Jinja's text.split(separator)[0] and [-1].
std::string_view before_first(std::string_view text, std::string_view separator) {
  return text.substr(0, text.find(separator));
}
std::string_view after_last(std::string_view text, std::string_view separator) {
  const size_t pos = text.rfind(separator);
  return pos == std::string_view::npos ? text : text.substr(pos + separator.size());
}

const ordered_json& member(const ordered_json& object, const char* key) {
  static const ordered_json null;
  const auto it = object.find(key);
  return it == object.end() ? null : *it;
}

/// A call of a function by the assistant.
struct ToolCall {
  std::string name;
  std::string arguments;  // JSON
};

/// A message whose fields have the types that the template takes for granted.
struct Message {
  std::string role, content;
  std::optional<std::string> reasoning_content;
  std::vector<ToolCall> tool_calls;
};

ToolCall read_tool_call(const ordered_json& call, size_t message) {
  const auto fail = [&](std::string_view what) {
    throw BadInput(fmt::format("messages[{}].tool_calls: {}", message, what));
  };
  if (!call.is_object()) fail("an entry is not an object");
  const ordered_json& nested = member(call, "function");
  const ordered_json& function = nested.is_object() && !nested.empty() ? nested : call;
  if (!member(function, "name").is_string()) fail("a call has no name");
  if (function.find("arguments") == function.end()) fail("a call has no arguments");
  const ordered_json& arguments = function["arguments"];
  return {function["name"], arguments.is_string() ? arguments.get<std::string>() : python_json(arguments)};
}

Message read_message(const ordered_json& json, size_t index) {
  const auto fail = [&](std::string_view what) {
    throw BadInput(fmt::format("messages[{}] {}", index, what));
  };
  if (!json.is_object()) fail("is not an object");
  if (!member(json, "role").is_string()) fail("has no role");
  Message message;
  message.role = json["role"];
  const std::string& role = message.role;
  if (role != "system" && role != "user" && role != "assistant" && role != "tool")
    fail(fmt::format("has the role '{}'; the chat template knows system, user, assistant and tool", role));

  if (role == "assistant") {
    const ordered_json& calls = member(json, "tool_calls");
    if (!calls.is_null() && !calls.is_array()) fail("has tool_calls that are no list");
    for (const ordered_json& call : calls) message.tool_calls.push_back(read_tool_call(call, index));
    const ordered_json& reasoning = member(json, "reasoning_content");
    if (!reasoning.is_null() && !reasoning.is_string()) fail("has a reasoning_content that is no string");
    if (reasoning.is_string()) message.reasoning_content = reasoning;
  }
  const ordered_json& content = member(json, "content");
  if (content.is_string())
    message.content = content;
  else if (!content.is_null() || message.tool_calls.empty())  // calls stand alone in OpenAI's format
    fail("has a content that is no string");
  return message;
}

bool is_tool_response(const Message& message) {
  return message.content.starts_with("<tool_response>") && message.content.ends_with("</tool_response>");
}

/// The last real question: reasoning before it is left out.
size_t last_query_index(const std::vector<Message>& messages) {
  for (size_t i = messages.size(); i-- > 0;)
    if (messages[i].role == "user" && !is_tool_response(messages[i])) return i;
  return messages.size() - 1;
}

void append_tools(const ordered_json& tools, const Message& first, std::string& out) {
  out += "<|im_start|>system\n";
  if (first.role == "system") out += first.content + "\n\n";
  out +=
      "# Tools\n\nYou may call one or more functions to assist with the user query.\n\n"
      "You are provided with function signatures within <tools></tools> XML tags:\n<tools>";
  for (const ordered_json& tool : tools) out += "\n" + python_json(tool);
  out +=
      "\n</tools>\n\nFor each function call, return a json object with function name and arguments within "
      "<tool_call></tool_call> XML tags:\n<tool_call>\n"
      "{\"name\": <function-name>, \"arguments\": <args-json-object>}\n</tool_call><|im_end|>\n";
}

void append_assistant(const Message& message, bool after_last_query, bool is_last, std::string& out) {
  std::string_view content = message.content, reasoning;
  if (message.reasoning_content) {
    reasoning = *message.reasoning_content;
  } else if (content.find("</think>") != std::string_view::npos) {
    reasoning = strip_left(after_last(strip_right(before_first(content, "</think>")), "<think>"));
    content = strip_left(after_last(content, "</think>"));
  }
  out += "<|im_start|>assistant\n";
  if (after_last_query && (is_last || !reasoning.empty()))
    out +=
        fmt::format("<think>\n{}\n</think>\n\n{}", strip_left(strip_right(reasoning)), strip_left(content));
  else
    out += content;
  bool first = true;
  for (const ToolCall& call : message.tool_calls) {
    if (!first || !content.empty()) out += '\n';
    out += fmt::format("<tool_call>\n{{\"name\": \"{}\", \"arguments\": {}}}\n</tool_call>", call.name,
                       call.arguments);
    first = false;
  }
  out += "<|im_end|>\n";
}

std::string qwen3_prompt(const std::vector<Message>& messages, const ordered_json& tools, bool no_thinking) {
  std::string out;
  if (!tools.empty())
    append_tools(tools, messages[0], out);
  else if (messages[0].role == "system")
    out += fmt::format("<|im_start|>system\n{}<|im_end|>\n", messages[0].content);

  const size_t last_query = last_query_index(messages);
  const auto is_tool = [&](size_t i) { return i < messages.size() && messages[i].role == "tool"; };
  for (size_t i = 0; i < messages.size(); ++i) {
    const Message& message = messages[i];
    if (message.role == "user" || (message.role == "system" && i > 0)) {
      out += fmt::format("<|im_start|>{}\n{}<|im_end|>\n", message.role, message.content);
    } else if (message.role == "assistant") {
      append_assistant(message, i > last_query, i + 1 == messages.size(), out);
    } else if (message.role == "tool") {
      // Neighbouring tool messages are one turn of the user.
      if (i == 0 || !is_tool(i - 1)) out += "<|im_start|>user";
      out += fmt::format("\n<tool_response>\n{}\n</tool_response>", message.content);
      if (!is_tool(i + 1)) out += "<|im_end|>\n";
    }
  }
  out += "<|im_start|>assistant\n";
  if (no_thinking) out += "<think>\n\n</think>\n\n";
  return out;
}

std::optional<std::string> read_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) return std::nullopt;
  return std::string(std::istreambuf_iterator<char>(file), {});
}

}  // namespace

ChatTemplate ChatTemplate::load(const std::string& model_dir) {
  const std::string jinja_path = model_dir + "/chat_template.jinja";
  if (const auto jinja = read_file(jinja_path)) return from_text(*jinja, jinja_path);
  const std::string path = model_dir + "/tokenizer_config.json";
  const auto text = read_file(path);
  if (!text)
    return ChatTemplate(fmt::format("{} cannot be opened, so there is no chat template: {}", path, kInstead));
  ordered_json config;
  try {
    config = ordered_json::parse(*text);
  } catch (const ordered_json::exception& e) {
    return ChatTemplate(
        fmt::format("{} is not valid JSON ({}), so there is no chat template: {}", path, e.what(), kInstead));
  }
  const ordered_json& chat_template = config.is_object() ? member(config, "chat_template") : config;
  if (chat_template.is_string()) return from_text(chat_template.get_ref<const std::string&>(), path);
  return ChatTemplate(fmt::format("{} has {}: {}", path,
                                  chat_template.is_array()
                                      ? "several chat templates, which this program does not know"
                                      : "no chat template",
                                  kInstead));
}

ChatTemplate ChatTemplate::from_text(std::string_view jinja, const std::string& name) {
  const std::string checksum = sha256_hex(jinja);
  for (std::string_view known : kQwen3Templates)
    if (checksum == known) return ChatTemplate("");
  return ChatTemplate(
      fmt::format("the chat template of {} (SHA-256 {}…) is not one that this program knows: {}", name,
                  checksum.substr(0, 12), kInstead));
}

std::string ChatTemplate::render(std::string_view request) const {
  if (!fault_.empty()) throw BadInput(fault_);
  ordered_json json;
  try {
    json = ordered_json::parse(request);
  } catch (const ordered_json::exception& e) {
    throw BadInput(fmt::format("the messages are not valid JSON: {}", e.what()));
  }
  if (!json.is_object() || !member(json, "messages").is_array() || member(json, "messages").empty())
    throw BadInput("messages must be a list with at least one message");
  const ordered_json& tools = member(json, "tools");
  if (!tools.is_null() && !tools.is_array()) throw BadInput("tools must be a list");
  const ordered_json& thinking = member(json, "enable_thinking");
  if (!thinking.is_null() && !thinking.is_boolean()) throw BadInput("enable_thinking must be true or false");

  std::vector<Message> messages;
  for (const ordered_json& message : json["messages"])
    messages.push_back(read_message(message, messages.size()));
  return qwen3_prompt(messages, tools, thinking.is_boolean() && !thinking.get<bool>());
}

}  // namespace moerun
