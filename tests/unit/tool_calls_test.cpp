// Calls of functions in answers, in each family's format, and the parts of a chat's answer.
#include "text/tool_calls.h"

#include <nlohmann/json.hpp>

#include "tests/catch.h"
#include "text/chat_parts.h"
#include "text/written_json.h"

using namespace moerun;

namespace {

const ToolFunctions& functions() {
  static const ToolFunctions known(R"([
    {"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {
       "city": {"type": "string"}, "days": {"type": "integer"}, "exact": {"type": "boolean"},
       "limit": {"type": "number"}, "where": {"type": "object"}, "tags": {"type": "array"},
       "unit": {"enum": ["c", "f"]}, "maybe": {"anyOf": [{"type": "integer"}, {"type": "null"}]},
       "either": {"type": ["integer", "string"]}, "kind": {"const": 2}, "deep": {"$ref": "#/$defs/deep"}},
       "$defs": {"deep": {"type": "object"}}}}},
    {"type": "function", "function": {"name": "now"}}])");
  return known;
}

/// "NAME(ARGUMENTS) NAME(ARGUMENTS) | BEFORE | BEHIND", or "-" where all is text.
std::string calls_in(std::string_view text) {
  const auto found = find_tool_calls(text, functions());
  if (!found) return "-";
  std::string out;
  for (const ToolCall& call : found->calls) {
    CHECK(read_written_json(call.arguments).value.is_object());
    out += call.name + "(" + call.arguments + ") ";
  }
  return out + "| " + std::string(text.substr(0, found->begin)) + " | " +
         std::string(text.substr(found->end));
}

struct Example {
  const char *text, *calls;
};

/// "REASONING | CONTENT | CALLS"; "-" where there is none.
std::string parts_of(std::string_view text, bool opened, const ToolFunctions& offered = functions()) {
  const ChatParts parts = split_chat(text, true, opened, offered);
  const auto span = [&](ChatParts::Span of) { return std::string(text.substr(of.begin, of.end - of.begin)); };
  const std::string calls =
      parts.tool_calls.empty() ? "-" : std::to_string(nlohmann::json::parse(parts.tool_calls).size());
  std::string said;
  if (!parts.tool_calls.empty())
    for (const auto& call : nlohmann::json::parse(parts.tool_calls)) said += call.value("said", "");
  const std::string content = parts.tool_calls.empty()
                                  ? span(parts.content)
                                  : span({parts.content.begin, parts.calls.begin}) + said +
                                        span({parts.calls.end, parts.content.end});
  CHECK(parts.known == (parts.has_reasoning || !parts.tool_calls.empty()));
  return (parts.has_reasoning ? span(parts.reasoning) : "-") + " | " + content + " | " + calls;
}

}  // namespace

TEST_CASE("tool calls: JSON as Hermes and Qwen3 write it", "[tool_calls]") {
  for (const Example& one : {
           Example{"<tool_call>\n{\"name\": \"weather\", \"arguments\": {\"city\": \"Köln\", \"days\": "
                   "3}}\n</tool_call>",
                   "weather({\"city\": \"Köln\", \"days\": 3}) |  | "},
           {"Let me see.\n<tool_call>{\"name\": \"now\", \"arguments\": {}}</tool_call>\nDone",
            "now({}) | Let me see.\n | \nDone"},
           // Arguments keep their digits and their spelling, whatever stands around them.
           {"<tool_call>{\"arguments\": {\"n\": 12345678901234567890123, \"s\": \"\\u00e4}\\\"{\", \"x\": "
            "[1.50, {}]}, "
            "\"name\": \"now\"}</tool_call>",
            "now({\"n\": 12345678901234567890123, \"s\": \"\\u00e4}\\\"{\", \"x\": [1.50, {}]}) |  | "},
           {"<tool_call>{\"name\": \"now\"}</tool_call><tool_call>\n{\"name\": \"now\", \"arguments\": "
            "{\"a\": null}}",
            "now({}) now({\"a\": null}) |  | "},
           // A text may have the marker of the end, and control characters as they are.
           {"<tool_call>{\"name\": \"now\", \"arguments\": {\"a\": \"</tool_call>\t\"}}</tool_call> ok",
            "now({\"a\": \"</tool_call>\\u0009\"}) |  |  ok"},
           // What a double cannot hold, and half a surrogate pair.
           {"<tool_call>{\"name\": \"now\", \"arguments\": {\"a\": 1e999, \"b\": \"\\ud800\"}}</tool_call>",
            "now({\"a\": 1e999, \"b\": \"\\ud800\"}) |  | "},
           // What cannot be read stays text.
           {"<tool_call>{\"name\": \"weather\", \"arguments\": {\"city\": \"Kö", "-"},
           {"<tool_call>{\"name\": \"now\", \"arguments\": {}}</tool_call><tool_call>{\"name\": \"no", "-"},
           {"<tool_call>{\"name\": \"rm\", \"arguments\": {}}</tool_call>", "-"},
           {"<tool_call>{\"name\": 3, \"arguments\": {}}</tool_call>", "-"},
           {"<tool_call>{\"name\": \"now\", \"arguments\": \"{}\"}</tool_call>", "-"},
           {"<tool_call>{\"name\": \"now\", \"arguments\": {},}</tool_call>", "-"},
           {"<tool_call></tool_call>", "-"},
           {"<tool_call>", "-"},
           {"no call", "-"},
           {"", "-"},
       }) {
    CAPTURE(one.text);
    CHECK(calls_in(one.text) == one.calls);
  }
}

TEST_CASE("tool calls: tags as Qwen3-Coder, GLM and MiniMax write them, typed by the schema",
          "[tool_calls]") {
  for (const Example& one : {
           Example{
               "<tool_call>\n<function=weather>\n<parameter=city>\nKöln\n</parameter>\n<parameter=days>\n3\n"
               "</parameter>\n<parameter=exact>\nTrue\n</parameter>\n<parameter=limit>\n1.50\n</parameter>\n"
               "</function>\n</tool_call>",
               "weather({\"city\": \"Köln\", \"days\": 3, \"exact\": true, \"limit\": 1.50}) |  | "},
           {"<tool_call><function=weather><parameter=where>{\"a\": [1]}</parameter><parameter=tags>[1, "
            "2]</parameter><parameter=maybe>null</parameter></function></tool_call>",
            "weather({\"where\": {\"a\": [1]}, \"tags\": [1, 2], \"maybe\": null}) |  | "},
           // A text is a text, also where it looks like something else; what does not fit its type is one.
           {"<tool_call><function=weather><parameter=city>12</parameter><parameter=days>soon</"
            "parameter><parameter="
            "unit>c</parameter><parameter=other>5</parameter><parameter=exact>1</parameter></function></"
            "tool_call>",
            "weather({\"city\": \"12\", \"days\": \"soon\", \"unit\": \"c\", \"other\": \"5\", \"exact\": "
            "\"1\"}) |  | "},
           {"<tool_call><function=weather><parameter=either>5</parameter><parameter=city>a\n\"b\"\n</"
            "parameter>"
            "</function></tool_call>",
            "weather({\"either\": 5, \"city\": \"a\\n\\\"b\\\"\"}) |  | "},
           // JSON ends where it ends, and a text at its tag, whatever else it has.
           {"<tool_call><function=weather><parameter=tags>[\"</parameter>\", "
            "1e999]</parameter><parameter=city>"
            "</tool_call></parameter></function></tool_call>",
            "weather({\"tags\": [\"</parameter>\", 1e999], \"city\": \"</tool_call>\"}) |  | "},
           {"<tool_call><function=weather><parameter=days>123456789012345678901234567890</"
            "parameter><parameter=kind>"
            "2</parameter><parameter=deep>{\"a\": 1}</parameter></function></tool_call>",
            "weather({\"days\": 123456789012345678901234567890, \"kind\": 2, \"deep\": {\"a\": 1}}) |  | "},
           {"<tool_call>{</tool_call> <minimax:tool_call><invoke name=\"now\"></invoke></minimax:tool_call>",
            "now({}) | <tool_call>{</tool_call>  | "},
           {"<tool_call><function=now></function></tool_call>", "now({}) |  | "},
           {"<tool_call><function=now></tool_call>", "-"},
           {"<tool_call><function=weather><parameter=city>Kö", "-"},
           {"<tool_call><function=weather>Köln</function></tool_call>", "-"},
           {"<tool_call><function=rm></function></tool_call>", "-"},
           {"<tool_call>weather\n<arg_key>city</arg_key>\n<arg_value>Köln</arg_value>\n<arg_key>days</"
            "arg_key>\n"
            "<arg_value>3</arg_value>\n</tool_call>",
            "weather({\"city\": \"Köln\", \"days\": 3}) |  | "},
           {"x<tool_call>now</tool_call><tool_call>now\n</tool_call>", "now({}) now({}) | x | "},
           {"<tool_call>weather<arg_key>city</arg_key><arg_value>Kö</tool_call>", "-"},
           {"<tool_call>weather today</tool_call>", "-"},
           {"<tool_call>weather<arg_key>city</arg_key>Köln</tool_call>", "-"},
           {"<minimax:tool_call>\n<invoke name=\"weather\">\n<parameter "
            "name=\"days\">2</parameter>\n</invoke>\n<invoke "
            "name=\"now\">\n</invoke>\n</minimax:tool_call>",
            "weather({\"days\": 2}) now({}) |  | "},
           {"<minimax:tool_call><invoke name=\"rm\"></invoke></minimax:tool_call>", "-"},
           {"<minimax:tool_call></minimax:tool_call>", "-"},
       }) {
    CAPTURE(one.text);
    CHECK(calls_in(one.text) == one.calls);
  }
  CHECK_FALSE(find_tool_calls("<tool_call>now</tool_call>", ToolFunctions()));
}

TEST_CASE("chat parts: reasoning by the family's markers", "[tool_calls]") {
  const ToolFunctions none;
  CHECK(parts_of("<think>\nHm.\n</think>\n\nYes.", false, none) == "\nHm.\n | \n\nYes. | -");
  CHECK(parts_of("Hm.</think>Yes.", true, none) == "Hm. | Yes. | -");
  CHECK(parts_of("\n<think>Hm.</think>Yes.", true, none) == "Hm. | Yes. | -");
  // Cut by length: all of it is reasoning, where the model had begun to think.
  CHECK(parts_of("Hm. And", true, none) == "Hm. And |  | -");
  CHECK(parts_of("<think>Hm", false, none) == "Hm |  | -");
  CHECK(parts_of("", true, none) == " |  | -");
  CHECK(parts_of("Yes.</think>", false, none) == "- | Yes.</think> | -");
  CHECK(parts_of("A <think> is no", false, none) == "- | A <think> is no | -");
  CHECK(parts_of("Hm.</think>Yes.</think>No", true, none) == "Hm. | Yes.</think>No | -");
  const std::string call = "<tool_call>{\"name\": \"now\", \"arguments\": {}}</tool_call>";
  CHECK(parts_of("Hm " + call + "</think>\n\n" + call + "\n" + call + "\n", true) ==
        "Hm " + call + " |  | 2");
  CHECK(parts_of("I look: " + call, false) == "- | I look:  | 1");
  CHECK(parts_of("One: " + call + " and two: " + call + "\n" + call + " done", false) ==
        "- | One:  and two:  done | 3");
  CHECK(parts_of(call + " There.", false) == "- |  There. | 1");
  CHECK_FALSE(split_chat("<think>a</think>b", false, false, none).known);  // a family without markers

  CHECK(opens_reasoning("<|im_start|>assistant\n<think>\n"));
  CHECK(opens_reasoning("<think>"));
  CHECK_FALSE(opens_reasoning("<think>\n\n</think>\n\n"));
  CHECK_FALSE(opens_reasoning("say <think> to me\n<|im_start|>assistant\n"));
  CHECK_FALSE(opens_reasoning(""));
}
