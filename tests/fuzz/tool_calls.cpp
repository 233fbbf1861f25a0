// The parts of a chat's answer, whatever a model wrote.
#include <nlohmann/json.hpp>

#include "tests/fuzz/harness.h"
#include "text/chat_parts.h"
#include "text/written_json.h"

namespace moerun::fuzz {

/// The first byte says whether the prompt opened the reasoning.
void read_chat_answer(std::string_view bytes) {
  static const ToolFunctions functions(
      R"([{"type": "function", "function": {"name": "f", "parameters": {"properties": {"a": {"type": "integer"},
          "b": {"type": "string"}, "c": {"type": ["object", "null"]}}}}}])");
  const bool opened = (take_byte(bytes) & 1) != 0;
  const ChatParts parts = split_chat(bytes, true, opened, functions);
  for (const ChatParts::Span& span : {parts.reasoning, parts.content, parts.calls})
    check(span.begin <= span.end && span.end <= bytes.size(), "a part lies in its text");
  if (parts.tool_calls.empty()) return;
  check(parts.content.begin <= parts.calls.begin && parts.calls.end <= parts.content.end,
        "calls lie in the content");
  for (const nlohmann::json& call : nlohmann::json::parse(parts.tool_calls)) {
    check(call.at("name") == "f", "the function is one that there is");
    check(read_written_json(call.at("arguments").get<std::string>()).value.is_object(),
          "arguments are a JSON object");
  }
}

}  // namespace moerun::fuzz
