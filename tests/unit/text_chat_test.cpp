#include <sys/stat.h>

#include <filesystem>
#include <fstream>
#include <map>
#include <sstream>

#include "moerun/error.h"
#include "tests/unit/temporary_directory.h"
#include "tests/unit/text_fixture.h"
#include "text/chat_template.h"
#include "text/jinja/json.h"
#include "text/tokenize_command.h"
#include "text/tokenizer.h"

using namespace moerun;
using nlohmann::json;

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

TEST_CASE("A template is given the messages as transformers gives them", "[text]") {
  const auto rows = read_jsonl<nlohmann::ordered_json>("tests/golden/text/messages.jsonl");
  REQUIRE(rows.size() > 100);
  for (const auto& row : rows) {
    INFO(row.dump());
    const std::string name = row["template"];
    const auto chat_template = ChatTemplate::from_text(
        name.ends_with(".jinja") ? read_text_file("tests/golden/text/" + name) : name, "test");
    const std::string request = row["request"].dump();
    if (row.contains("error"))
      CHECK_THROWS_AS(chat_template.render(request), BadInput);
    else
      CHECK(chat_template.render(request) == row["text"]);
  }
}

TEST_CASE("Qwen3's chat golden: messages to text to ids", "[text]") {
  const auto folder = shared_folder("golden/qwen3-tokenizer");
  if (!folder) return;
  const auto rows = read_jsonl(*folder + "/chat.jsonl");
  REQUIRE(rows.size() == 12);
  const ChatTemplate chat_template = ChatTemplate::load(*folder, 0);
  Tokenizer tokenizer = Tokenizer::load(*folder);
  for (const json& row : rows) {
    INFO(row.dump());
    const std::string text = chat_template.render(row.dump());
    CHECK(text == row["text"]);
    CHECK(tokenizer.encode(text) == row["ids"].get<std::vector<int32_t>>());
  }
}

TEST_CASE("Real chat templates render as jinja2 renders them", "[text]") {
  const auto folder = shared_folder("golden/templates");
  if (!folder) return;
  size_t cases = 0;
  for (const auto& entry : std::filesystem::directory_iterator(*folder)) {
    if (!entry.is_directory()) continue;
    const jinja::Template parsed(read_text_file(entry.path() / "template.jinja"));
    for (const auto& row : read_jsonl<nlohmann::ordered_json>(entry.path() / "cases.jsonl")) {
      INFO(row["id"]);
      ++cases;
      jinja::Runtime runtime(1795953600);  // 2026-11-29 12:00:00
      jinja::Variables variables;
      const auto set = [&](const std::string& name, const nlohmann::ordered_json& value) {
        variables[name] = jinja::from_json(runtime, value.dump());
      };
      set("messages", row["messages"]);
      set("add_generation_prompt", row["add_generation_prompt"]);
      set("documents", nullptr);
      if (!row.value("tools_undefined", false)) set("tools", row.value("tools", nlohmann::ordered_json()));
      for (const char* token : {"bos_token", "eos_token"})
        if (!row[token].is_null()) set(token, row[token]);
      for (const auto& [name, value] : row["kwargs"].items()) set(name, value);
      std::string text, error;
      bool raised = false;
      try {
        text = parsed.render(runtime, variables);
      } catch (const jinja::TemplateError& failed) {
        error = failed.what();
        raised = failed.kind() == jinja::TemplateError::Kind::raised;
      }
      if (row.contains("error")) {
        CHECK(error == row["error"]["message"]);  // also of Python's own errors
        CHECK(raised == (row["error"]["kind"] == "raise_exception"));
      } else {
        CHECK(error.empty());
        CHECK(text == row["text"]);
      }
    }
  }
  CHECK(cases >= 500);
}

TEST_CASE("Conversations that are none are refused by name", "[text]") {
  const ChatTemplate chat_template = ChatTemplate::from_text("{{ messages | length }}", "test");
  const std::string hi = R"("messages": [{"role": "user", "content": "x"}])";
  const std::vector<std::pair<std::string, const char*>> cases = {
      {"[]", "a conversation is a JSON object"},
      {"{}", "messages must be a list"},
      {R"({"messages": "hi"})", "messages must be a list"},
      {"{", "the messages are not JSON at column"},
      {R"({"messages": []})", "messages is empty"},
      {R"({"messages": ["hi"]})", "messages[0] is not an object"},
      {"{" + hi + R"(, "enable_thinking": "false"})", "enable_thinking must be true or false"},
      {"{" + hi + R"(, "tools": {"a": 1}})", "tools must be a list"},
      {"{" + hi + R"(, "tools": [{}, 1]})", "tools[1] is not an object"},
      {"{" + hi + R"(, "documents": 1})", "documents must be a list"},
      {"{" + hi + R"(, "documents": ["a"]})", "documents[0] is not an object"},
      {"{" + hi + R"(, "add_generation_prompt": 1})", "add_generation_prompt must be true or false"},
      {"{" + hi + R"(, "chat_template_kwargs": []})", "chat_template_kwargs must be an object"},
      {"{" + hi + R"(, "chat_template_kwargs": {"messages": []}})", "chat_template_kwargs has messages"},
      {"{" + hi + R"(, "tools": [], "chat_template_kwargs": {"tools": []}})",
       "chat_template_kwargs has tools"},
      {"{" + hi + R"(, "chat_template_kwargs": {"continue_final_message": true}})",
       "continue_final_message is not supported"},
  };
  for (const auto& [request, message] : cases) {
    INFO(request);
    CHECK(contains(message_of<BadInput>([&, request = request] { chat_template.render(request); }), message));
  }
}

TEST_CASE("A template is given what stands beside the messages", "[text]") {
  const auto rendered = [](const char* jinja, const std::string& more) {
    return ChatTemplate::from_text(jinja, "test")
        .render(R"({"messages": [{"role": "user", "content": "x"}])" + more + "}");
  };
  CHECK(rendered("{{ tools }} {{ documents }} {{ add_generation_prompt }} {{ enable_thinking is defined }}",
                 "") == "None None True False");
  CHECK(
      rendered(
          "{{ tools }} {{ documents }} {{ add_generation_prompt }} {{ enable_thinking }} {{ effort }}",
          R"(, "tools": [{"b": 1}], "documents": [{"a": 2}], "add_generation_prompt": false, "enable_thinking": false,
                    "chat_template_kwargs": {"effort": 340282366920938463463374607431768211456})") ==
      "[{'b': 1}] [{'a': 2}] False False 340282366920938463463374607431768211456");
  CHECK(rendered("{{ x is none }}", R"(, "chat_template_kwargs": {"x": null})") == "True");
}

TEST_CASE("A folder's template: the file before the configuration, named ones by transformers' rule",
          "[text]") {
  const TemporaryDirectory dir;
  const auto write = [&](const std::string& name, const std::string& text) {
    std::filesystem::create_directories(std::filesystem::path(dir / name).parent_path());
    std::ofstream(dir / name) << text;
  };
  const std::string hi = R"({"messages": [{"role": "user", "content": "x"}])";
  const auto render = [&](const std::string& more) {
    return ChatTemplate::load(dir / "", 0).render(hi + more + "}");
  };
  write(
      "tokenizer_config.json",
      R"({"bos_token": "<s>", "eos_token": {"content": "</s>", "lstrip": false}, "image_token": "<i>", "add_bos_token": true,
            "chat_template": [{"name": "default", "template": "{{ bos_token + eos_token + image_token }}"},
                              {"name": "tool_use", "template": "T{{ tools | length }}"}]})");
  write("special_tokens_map.json", R"({"bos_token": "<S>"})");
  CHECK(render("") == "<S></s><i>");
  CHECK(render(R"(, "tools": [])") == "T0");
  CHECK(render(R"(, "chat_template_kwargs": {"bos_token": "B"})") == "B</s><i>");
  write("chat_template.jinja", "file{{ bos_token }}");
  CHECK(render(R"(, "tools": [])") == "file<S>");
  write("additional_chat_templates/tool_use.jinja", "more");
  CHECK(render(R"(, "tools": [])") == "more");
  CHECK(render("") == "file<S>");
  write("tokenizer_config.json", R"({"added_tokens_decoder": {}, "bos_token": "<s>"})");
  CHECK(render("") == "file<s>");
  const std::string before = ChatTemplate::load(dir / "", 0).checksum();
  write("chat_template.jinja", "file {{ bos_token }}");
  CHECK(ChatTemplate::load(dir / "", 0).checksum() != before);
  std::filesystem::remove(dir / "chat_template.jinja");
  CHECK(contains(message_of<BadInput>([&] { render(""); }), "none called 'default'"));
}

TEST_CASE("A template's time is the job's start, and what it told is noted", "[text]") {
  const ChatTemplate chat_template = ChatTemplate::from_text(
      "{{ strftime_now('%d %b %Y') }} {{ strftime_now('%H:%M:%S.%f%z') }}", "test", 1795953600);
  TemplateDates dates;
  CHECK(chat_template.render(R"({"messages": [{}]})", &dates) == "29 Nov 2026 12:00:00.000000");
  CHECK(dates == TemplateDates{{"%d %b %Y", "29 Nov 2026"}, {"%H:%M:%S.%f%z", "12:00:00.000000"}});
}

TEST_CASE("A chat template that is absent or broken says what to give instead", "[text]") {
  const std::string request = R"({"messages": [{"role": "user", "content": "x"}]})";
  for (const ChatTemplate& chat_template :
       {ChatTemplate::load(kTinyModel, 0), ChatTemplate::load("no/such/folder", 0),
        ChatTemplate::from_text("a\n{% if %}", "test")})
    CHECK(contains(message_of<BadInput>([&] { chat_template.render(request); }),
                   "give `prompt` or `prompt_token_ids`"));
  CHECK(
      contains(message_of<BadInput>([&] { ChatTemplate::from_text("a\n{% if %}", "test").render(request); }),
               "the chat template of test, line 2: Expected an expression"));
}

TEST_CASE("A template's own error is the row's; others name the line", "[text]") {
  const std::string request = R"({"messages": [{"role": "user", "content": "x"}]})";
  const auto error_of = [&](const char* jinja) {
    return message_of<BadInput>([&] { ChatTemplate::from_text(jinja, "test").render(request); });
  };
  CHECK(error_of("{{ raise_exception('roles must alternate') }}") == "roles must alternate");
  CHECK(error_of("\n\n{{ messages[0].name.first }}") ==
        "the chat template of test, line 3: 'dict object' has no attribute 'name'");
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

TEST_CASE("moerun tokenize keeps no more of a line than a line may have", "[text]") {
  std::istringstream in("{\"text\": \"" + std::string(size_t{65} << 20, 'x') + "\"}\n" +
                        std::string(129, '[') + "\n{\"text\": \"\"}");
  std::ostringstream out;
  CHECK(tokenize_main(kTinyModel, in, out) == static_cast<int>(ExitCode::row_errors));
  CHECK(out.str() ==
        "{\"error\": \"line 1: the line is longer than 64 MiB\"}\n"
        "{\"error\": \"line 2: nested more than 128 deep\"}\n{\"ids\": []}\n");
}

TEST_CASE("What stands beside a model's templates is read within limits", "[text]") {
  const TemporaryDirectory dir;
  const auto write = [&](const std::string& name, const std::string& text) {
    std::ofstream(dir / name) << text;
  };
  const auto fault = [&] {
    const ChatTemplate loaded = ChatTemplate::load(dir / "", 0);
    if (!loaded.fault().empty()) return loaded.fault();
    return message_of<BadInput>([&] { loaded.render(R"({"messages": [{"role": "user"}]})"); });
  };
  write("chat_template.jinja", "x");
  write("tokenizer_config.json", std::string(200'000, '[') + std::string(200'000, ']'));
  CHECK(contains(fault(), "tokenizer_config.json: is nested more than 64 deep"));
  write("tokenizer_config.json", "{}");
  write("special_tokens_map.json", "[]");
  CHECK(contains(fault(), "special_tokens_map.json: is no JSON object"));
  write("special_tokens_map.json", "{}");
  std::filesystem::create_directory(dir / "additional_chat_templates");
  for (int i = 0; i < 63; ++i) write(fmt::format("additional_chat_templates/{}.jinja", i), "x");
  CHECK(ChatTemplate::load(dir / "", 0).fault().empty());
  write("additional_chat_templates/63.jinja", "x");
  CHECK(contains(fault(), "is one chat template more than the 64 that are read"));
  std::filesystem::remove_all(dir / "additional_chat_templates");
  write("chat_template.jinja", std::string((1 << 20) + 1, 'x'));
  CHECK(contains(fault(), "chat_template.jinja: has 1048577 bytes, and at most 1048576 are read"));
  std::filesystem::resize_file(dir / "tokenizer_config.json", uint64_t{1} << 40);  // a hole
  CHECK(contains(fault(), "tokenizer_config.json: has 1099511627776 bytes"));
  std::filesystem::remove(dir / "tokenizer_config.json");
  REQUIRE(mkfifo((dir / "tokenizer_config.json").c_str(), 0600) == 0);  // nothing waits for a writer
  CHECK(contains(fault(), "tokenizer_config.json: is no regular file"));
}

TEST_CASE("moerun tokenize --render answers a conversation with its prompt", "[text]") {
  const TemporaryDirectory dir;
  std::ofstream(dir / "chat_template.jinja")
      << "{% if not messages[0] %}{{ raise_exception('empty') }}{% endif "
         "%}{{ messages[0].content.x }}{{ add_generation_prompt }}";
  std::istringstream in(
      "{\"messages\": [{}]}\n"
      "{\"messages\": [{\"content\": {\"x\": \"\\u00e9\\n\"}}], \"add_generation_prompt\": false}\n"
      "{\"text\": \"x\"}\n"
      "\n"
      "{\"messages\": [{\"content\": {\"x\": 1.0}}]}");
  std::ostringstream out;
  CHECK(render_main(dir / "", in, out) == static_cast<int>(ExitCode::row_errors));
  std::istringstream lines(out.str());
  std::vector<json> answers;
  for (std::string line; std::getline(lines, line);) answers.push_back(json::parse(line));
  REQUIRE(answers.size() == 5);
  CHECK(answers[0] == json{{"error", "empty"}});
  CHECK(answers[1] == json{{"text", "é\nFalse"}});
  CHECK(answers[2] == json{{"error", "give \"messages\""}});
  CHECK(answers[3].contains("error"));
  CHECK(answers[4] == json{{"text", "1.0True"}});
  CHECK(contains(message_of<BadInput>([&] { render_main("no/such/folder", in, out); }),
                 "there is no chat template"));
}
