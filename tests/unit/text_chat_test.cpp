#include <map>
#include <sstream>

#include "moerun/error.h"
#include "tests/unit/text_fixture.h"
#include "text/chat_template.h"
#include "text/python_json.h"
#include "text/tokenize_command.h"
#include "text/tokenizer.h"

using namespace moerun;
using nlohmann::json;

namespace {

ChatTemplate qwen3() {
  return ChatTemplate::from_text(read_text_file("tests/golden/text/qwen3.jinja"), "test");
}

}  // namespace

TEST_CASE("Qwen3's chat templates render as Hugging Face renders them", "[text]") {
  const auto rows =
      read_jsonl<nlohmann::ordered_json>("tests/golden/text/chat.jsonl");  // tools keep their keys' order
  REQUIRE(rows.size() > 100);
  std::map<std::string, int> rendered;
  for (const auto& row : rows) {
    INFO(row.dump());
    const std::string name = row["template"];
    const auto chat_template = ChatTemplate::from_text(read_text_file("tests/golden/text/" + name), name);
    CHECK(chat_template.render(row["request"].dump()) == row["text"]);
    ++rendered[name];
  }
  CHECK(rendered.size() == 2);
}

TEST_CASE("Qwen3's chat golden: messages to text to ids", "[text]") {
  const auto folder = shared_folder("golden/qwen3-tokenizer");
  if (!folder) return;
  const auto rows = read_jsonl(*folder + "/chat.jsonl");
  REQUIRE(rows.size() == 12);
  const ChatTemplate chat_template = ChatTemplate::load(*folder);
  Tokenizer tokenizer = Tokenizer::load(*folder);
  for (const json& row : rows) {
    INFO(row.dump());
    const std::string text = chat_template.render(row.dump());
    CHECK(text == row["text"]);
    CHECK(tokenizer.encode(text) == row["ids"].get<std::vector<int32_t>>());
  }
}

TEST_CASE("Calls without content are a turn", "[text]") {
  const std::string text =
      qwen3().render(R"({"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": null,
    "tool_calls": [{"function": {"name": "f", "arguments": {"x": 1.0}}}]}, {"role": "tool", "content": "3"}]})");
  CHECK(text ==
        "<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\n<tool_call>\n{\"name\": \"f\", \"arguments\": "
        "{\"x\": 1.0}}\n"
        "</tool_call><|im_end|>\n<|im_start|>user\n<tool_response>\n3\n</"
        "tool_response><|im_end|>\n<|im_start|>assistant\n");
}

TEST_CASE("Messages that the template would swallow are refused by name", "[text]") {
  const ChatTemplate chat_template = qwen3();
  const std::vector<std::pair<const char*, const char*>> cases = {
      {"[]", "at least one message"},
      {R"({"messages": []})", "at least one message"},
      {R"({"messages": "hi"})", "must be a list"},
      {"{", "not valid JSON"},
      {R"({"messages": ["hi"]})", "messages[0] is not an object"},
      {R"({"messages": [{"content": "x"}]})", "messages[0] has no role"},
      {R"({"messages": [{"role": "user", "content": "x"}, {"role": "developer", "content": "x"}]})",
       "messages[1] has the role 'developer'"},
      {R"({"messages": [{"role": "user"}]})", "messages[0] has a content that is no string"},
      {R"({"messages": [{"role": "user", "content": [{"type": "text", "text": "x"}]}]})",
       "content that is no string"},
      {R"({"messages": [{"role": "assistant", "content": null}]})", "content that is no string"},
      {R"({"messages": [{"role": "assistant", "content": "", "reasoning_content": 3}]})",
       "reasoning_content"},
      {R"({"messages": [{"role": "assistant", "content": "", "tool_calls": {}}]})",
       "tool_calls that are no list"},
      {R"({"messages": [{"role": "assistant", "content": "", "tool_calls": [{"function": {"arguments": {}}}]}]})",
       "has no name"},
      {R"({"messages": [{"role": "assistant", "content": "", "tool_calls": [{"name": "f"}]}]})",
       "no arguments"},
      {R"({"messages": [{"role": "user", "content": "x"}], "enable_thinking": "false"})",
       "enable_thinking must be"},
      {R"({"messages": [{"role": "user", "content": "x"}], "tools": {"a": 1}})", "tools must be a list"},
      {R"({"messages": [{"role": "user", "content": "x"}], "tools": [{"max": 18446744073709551616}]})",
       "too large"},
  };
  for (const auto& [request, message] : cases) {
    INFO(request);
    CHECK(contains(message_of<BadInput>([&, request = request] { chat_template.render(request); }), message));
  }
}

TEST_CASE("A chat template that is absent or unknown says what to give instead", "[text]") {
  const std::string request = R"({"messages": [{"role": "user", "content": "x"}]})";
  CHECK(qwen3().fault().empty());
  const std::string text = read_text_file("tests/golden/text/qwen3.jinja");
  for (const ChatTemplate& chat_template :
       {ChatTemplate::load(kTinyModel), ChatTemplate::load("no/such/folder"),
        ChatTemplate::from_text(text + " ", "test"), ChatTemplate::from_text("", "test")}) {
    const std::string message = message_of<BadInput>([&] { chat_template.render(request); });
    CHECK(contains(message, "give `prompt` or `prompt_token_ids`"));
    CHECK(chat_template.fault() == message);
  }
}

TEST_CASE("JSON in prompts is spelled as Python spells it", "[text]") {
  const auto spelled = [](const char* text) { return python_json(nlohmann::ordered_json::parse(text)); };
  CHECK(
      spelled(
          R"({"b":[1,2.50,-0.0,1e16,1e15,1e-5,0.0001,123456789.125,5e-324],"a":{},"c":[],"d":[null,true]})") ==
      R"({"b": [1, 2.5, -0.0, 1e+16, 1000000000000000.0, 1e-05, 0.0001, 123456789.125, 5e-324], "a": {}, "c": [], "d": [null, true]})");
  CHECK(spelled(R"("\u00e9\n\u0001\u007f\"\\/")") == "\"é\\n\\u0001\x7f\\\"\\\\/\"");
}

TEST_CASE("moerun tokenize answers a line with a line", "[text]") {
  std::istringstream in(
      "{\"text\": \"The whale\"}\n"
      "{\"txt\": \"x\"}\n"
      "\n"
      "{\"text\": \"\"}\n"
      "{\"messages\": [{\"role\": \"user\", \"content\": \"x\"}]}\n"
      "{\"text\": \"x\", \"tools\": []}\n"
      "{\"text\": \"\xFF\"}\n"
      "{\"text\": \"x\"}");
  std::ostringstream out;
  CHECK(tokenize_main(kTinyModel, in, out) == static_cast<int>(ExitCode::row_errors));
  std::istringstream lines(out.str());
  std::vector<json> answers;
  for (std::string line; std::getline(lines, line);) answers.push_back(json::parse(line));
  REQUIRE(answers.size() == 8);
  Tokenizer tokenizer = Tokenizer::load(kTinyModel);
  CHECK(answers[0]["ids"] == tokenizer.encode("The whale"));
  CHECK(answers[3]["ids"] == json::array());
  CHECK(answers[7]["ids"] == tokenizer.encode("x"));
  for (const auto& [index, message] : std::vector<std::pair<size_t, const char*>>{
           {1, "line 2: give either"},
           {2, "line 3: "},
           {4, "line 5: data/tiny-moe/tokenizer_config.json has no chat template"},
           {5, "line 6: the key \"tools\""},
           {6, "line 7: "}})
    CHECK(contains(answers[index]["error"].get<std::string>(), message));
}
