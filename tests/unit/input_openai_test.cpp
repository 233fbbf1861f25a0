#include <fmt/format.h>
#include <fmt/ranges.h>

#include <string>
#include <utility>
#include <vector>

#include "io/json_row.h"
#include "tests/unit/input_fixture.h"
#include "text/tool_calls.h"

using namespace moerun;

namespace {

std::string line_of(const std::string& url, std::string body) {
  std::erase(body, '\n');
  return "{\"custom_id\": \"r-1\", \"method\": \"POST\", \"url\": \"" + url + "\", \"body\": {" + body +
         "}}\n";
}

const std::string kChat = "/v1/chat/completions", kCompletions = "/v1/completions";
const std::string kHello = R"("model": "tiny-moe", "messages": [{"role": "user", "content": "Hi"}])";

PromptRecord row_of(const std::string& url, const std::string& body) {
  return InputFixture("a.jsonl", line_of(url, body)).row();
}

std::string fault_of_chat(const std::string& more) { return row_of(kChat, kHello + ", " + more).error; }

}  // namespace

TEST_CASE("OpenAI batch lines become rows", "[input]") {
  const PromptRecord chat = row_of(
      kChat,
      kHello + R"(, "max_completion_tokens": 5, "temperature": 0.25, "top_p": 0.5, "seed": 3, "stop": ["x"],
          "logprobs": true, "top_logprobs": 4, "presence_penalty": 1, "frequency_penalty": null, "n": 3, "best_of": null,
          "stream": false, "top_k": 9, "chat_template_kwargs": {"enable_thinking": false}, "tools": [{"type": "function", "function": {"name": "f"}}])");
  CHECK(chat.error == "");
  CHECK(chat.tools == R"([{"type":"function","function":{"name":"f"}}])");
  CHECK(chat.id == "r-1");
  CHECK(chat.endpoint == Endpoint::chat_completions);
  CHECK(
      chat.messages ==
      R"({"messages":[{"role":"user","content":"Hi"}],"tools":[{"type":"function","function":{"name":"f"}}],"chat_template_kwargs":{"enable_thinking":false}})");
  const SamplingParams expected{
      .draw =
          {.seed = 3, .temperature = 0.25f, .top_p = 0.5f, .top_k = 9, .presence_penalty = 1, .logprobs = 4},
      .own_seed = true,
      .n = 3,
      .max_tokens = 5,
      .stop = {"x"},
      .thinking = SamplingParams::Thinking::off};
  CHECK(chat.sampling == expected);

  const PromptRecord text =
      row_of(kCompletions, R"("model": "org/tiny-moe", "prompt": "Hi", "max_tokens": 2, "logprobs": 3)");
  CHECK(text.error.empty());
  CHECK(text.endpoint == Endpoint::completions);
  CHECK(text.prompt == "Hi");
  CHECK(text.sampling.draw.logprobs == 3);
  const PromptRecord ids = row_of(kCompletions, R"("model": "tiny-moe", "prompt": [1, 2])");
  CHECK(ids.prompt_token_ids == std::vector<int32_t>{1, 2});
}

TEST_CASE("what is wrong with an OpenAI batch line", "[input]") {
  CHECK(row_of(kChat, R"("messages": [{"role": "user", "content": "Hi"}])").error ==
        "body.model must be the model's name, not null");
  CHECK(row_of(kChat, R"("model": "gpt-4", "messages": [{"role": "user", "content": "Hi"}])").error ==
        "body.model is \"gpt-4\", but this job runs \"tiny-moe\"");
  CHECK(row_of(kChat, R"("model": "tiny-moe")").error == "body.messages is missing");
  CHECK(row_of(kCompletions, R"("model": "tiny-moe")").error == "body.prompt is missing");
  CHECK(row_of("/v1/embeddings", R"("model": "tiny-moe")").error ==
        "url must be \"/v1/chat/completions\" or \"/v1/completions\", not \"/v1/embeddings\"");
  CHECK(row_of(kCompletions, R"("model": "tiny-moe", "prompt": ["a"])").prompt == "a");
  CHECK(fault_of_chat(R"("max_tokens": 1, "max_completion_tokens": 2)") ==
        "body has max_tokens and max_completion_tokens; one of them must go");
  CHECK(fault_of_chat(R"("n": 0)") == "n must be an integer from 1 to 16384, not 0");
  CHECK(fault_of_chat(R"("n": 2, "max_tokens": 0)") ==
        "n (2) asks for several answers, and max_tokens (0) for none");
  CHECK(fault_of_chat(R"("n": 2, "best_of": 2)") ==
        "body.best_of is not supported other than as 1 beside one answer: 2 would change the answer");
  CHECK(fault_of_chat(R"("n": 2, "best_of": 1)").starts_with("body.best_of is not supported"));
  CHECK(fault_of_chat(R"("stream": true)") ==
        "body.stream is not supported other than as false: true would change the answer");
  CHECK(fault_of_chat(R"("response_format": {"type": "xml"})") ==
        "body.response_format must be an object with the type \"text\", \"json_object\" or \"json_schema\", "
        "not "
        "{\"type\":\"xml\"}");
  CHECK(fault_of_chat(R"("response_format": {"type": "json_object"}, "guided_regex": "a")") ==
        "guided_regex and response_format ask for two forms of one answer");
  CHECK(fault_of_chat(R"("logit_bias": {"50": -101})") ==
        "logit_bias 50: must be a number from -100 to 100, not -101");
  CHECK(fault_of_chat(R"("tool_choice": "required")") ==
        "body.tool_choice asks for a call, and there are no body.tools");
  CHECK(fault_of_chat(R"("reasoning_effort": "high")") ==
        "body.reasoning_effort would change the answer, and this program cannot do it: leave it out");
  CHECK(fault_of_chat(R"("max_tokes": 3)") ==
        "there is no field \"body.max_tokes\"; did you mean \"max_tokens\"?");
  CHECK(fault_of_chat(R"("quite_new": 3)") ==
        "there is no field \"body.quite_new\", and it might change the answer: leave it out");
  CHECK(fault_of_chat(R"("top_logprobs": 2)") == "body.top_logprobs needs body.logprobs: true");
  CHECK(fault_of_chat(R"("logprobs": 2)") == "body.logprobs must be true or false, not 2");
  CHECK(fault_of_chat(R"("temperature": 200)") == "temperature must be a number from 0 to 100, not 200");
  CHECK(fault_of_chat(R"("prompt": "a")").starts_with("there is no field \"body.prompt\""));
  CHECK_THAT(fault_of_chat(R"("chat_template_kwargs": [1])"),
             ContainsSubstring("chat_template_kwargs must be"));

  const auto fault = [](const std::string& line) { return InputFixture("a.jsonl", line).row().error; };
  CHECK(fault(R"({"custom_id": "", "method": "GET", "url": "/v1/completions", "body": [], "x": 1})") ==
        "there is no field \"x\", and it might change the answer: leave it out; custom_id must be a text "
        "that is not empty, not \"\"; "
        "method must be \"POST\", not \"GET\"; body must be an object, not []");
  CHECK(fault(R"({"custom_id": "a"})") == "method is missing; url is missing; body is missing");
}

TEST_CASE("fields of a body that change nothing here run", "[input]") {
  const std::string without = R"(, "user": "u", "metadata": {"a": "b"}, "store": true, "service_tier": "flex",
      "parallel_tool_calls": true, "response_format": {"type": "text"}, "tool_choice": "auto", "logit_bias": {},
      "stream": false, "stream_options": null, "n": 1, "safety_identifier": "s", "prompt_cache_key": "k", "top_logprobs": 0,
      "suffix": null, "quite_new": null, "skip_special_tokens": true, "chat_template_kwargs": {})";
  const PromptRecord chat = row_of(kChat, kHello + without);
  CHECK(chat.error == "");
  CHECK(chat.sampling == SamplingParams{.thinking = SamplingParams::Thinking::unsaid});
  CHECK(row_of(kChat, kHello + R"(, "tool_choice": "none", "parallel_tool_calls": false)").error.empty());
  CHECK(row_of(kChat, kHello + R"(, "tools": [], "tool_choice": "auto")").error.empty());
  CHECK(
      row_of(kCompletions, R"("model": "tiny-moe", "prompt": "a", "echo": false, "best_of": 1, "suffix": "")")
          .error.empty());
}

TEST_CASE("tools of a chat: functions, what may be called, and earlier calls", "[input]") {
  const auto fault = [](const std::string& tool) { return fault_of_chat(R"("tools": [)" + tool + "]"); };
  CHECK(fault(R"({"a": 1})") ==
        "body.tools[0] must be {\"type\": \"function\", \"function\": {\"name\": …}}, not {\"a\":1}");
  CHECK(fault(R"({"type": "custom", "custom": {"name": "f"}})").starts_with("body.tools[0] must be"));
  CHECK(fault(R"({"type": "function", "function": {"name": "a b"}})") ==
        "body.tools[0].function.name must be 1 to 64 letters, digits, _ and -, not \"a b\"");
  CHECK(fault(R"({"type": "function", "function": {"name": "f", "parameters": [1]}})") ==
        "body.tools[0].function.parameters must be a JSON Schema, an object, not [1]");
  CHECK(fault(R"({"type": "function", "function": {"name": "f", "strict": 1}})") ==
        "body.tools[0].function.strict must be true or false, not 1");
  const std::string f = R"({"type": "function", "function": {"name": "f"}})";
  CHECK(fault(f + "," + f) == "body.tools[1].function.name \"f\" is an earlier tool's");
  CHECK(fault_of_chat(R"("tools": {})") == "body.tools must be a list, not {}");

  // Where none may be called the model is not told of any.
  const PromptRecord none = row_of(kChat, kHello + R"(, "tool_choice": "none", "tools": [)" + f + "]");
  CHECK(none.error == "");
  CHECK(none.tools == "");
  CHECK(none.messages == R"({"messages":[{"role":"user","content":"Hi"}]})");

  const auto past = [](const std::string& arguments) {
    return row_of(kChat,
                  R"("model": "tiny-moe", "messages": [{"role": "assistant", "tool_calls": [{"function":
        {"name": "f", "arguments": )" +
                      arguments + "}}]}]");
  };
  CHECK(
      past(R"("{\"a\": [1, 2.50]}")").messages ==
      R"({"messages":[{"role":"assistant","tool_calls":[{"function":{"name":"f","arguments":{"a":[1,2.5]}}}]}]})");
  CHECK(past(R"({"a": 1})").error == "");
  CHECK(past(R"("")").error == "");
  CHECK(past(R"("[1]")").error ==
        "messages[0].tool_calls[0].function.arguments must be a JSON object in a text, not \"[1]\"");
  CHECK(past("\"" + std::string(200'000, '[') + "\"").error.starts_with("messages[0].tool_calls[0]"));
}

TEST_CASE("choices of tools become forms of answers", "[input]") {
  const std::string f = R"({"type": "function", "function": {"name": "f"}})",
                    g = R"({"type": "function", "function": {"name": "g", "strict": true}})";
  const auto row = [&](const std::string& tools, const std::string& more) {
    return row_of(kChat, kHello + R"(, "tools": [)" + tools + "]" + (more.empty() ? "" : ", " + more));
  };
  const auto form = [&](const std::string& tools, const std::string& more) {
    const PromptRecord record = row(tools, more);
    CHECK(record.error == "");
    CHECK(record.sampling.form == AnswerForm());
    CHECK(record.messages->find("\"tools\"") != std::string::npos);
    if (!are_held_calls(record.tools)) return std::string("-");
    const Json said = Json::parse(record.tools);
    std::string out = said["mode"].get<std::string>() + (said["parallel"] == true ? " several" : " one");
    for (const Json& tool : said["tools"]) out += " " + tool["function"]["name"].get<std::string>();
    return out;
  };
  const std::string chosen = R"("tool_choice": {"type": "function", "function": {"name": "f"}})";
  const auto allowed = [](const std::string& mode, const std::string& tools) {
    return R"("tool_choice": {"type": "allowed_tools", "allowed_tools": {"mode": ")" + mode +
           R"(", "tools": [)" + tools + "]}}";
  };
  CHECK(form(f, "") == "-");
  CHECK(form(f + "," + g, "") == "auto several f g");
  CHECK(form(f, R"("parallel_tool_calls": false)") == "auto one f");
  CHECK(form(f, R"("tool_choice": "required")") == "required several f");
  CHECK(form(f + "," + g, chosen) == "named one f");
  CHECK(form(f + "," + g, allowed("auto", f)) == "auto several f");
  CHECK(form(f + "," + g, allowed("required", g) + R"(, "parallel_tool_calls": false)") == "required one g");
  CHECK(row(g, R"("tool_choice": "none")").tools.empty());

  CHECK(row(f, R"("tool_choice": "any")").error.starts_with("body.tool_choice must be \"none\", \"auto\", "));
  CHECK(row(g, chosen).error == "body.tool_choice names the function \"f\", which is not in body.tools");
  CHECK(row("", chosen).error == "body.tool_choice asks for a call, and there are no body.tools");
  CHECK(row("", R"("tool_choice": "required")").error ==
        "body.tool_choice asks for a call, and there are no body.tools");
  CHECK(row(f, allowed("none", f)).error.starts_with("body.tool_choice.allowed_tools must be an object"));
  CHECK(row(f, allowed("auto", "1"))
            .error.starts_with("body.tool_choice.allowed_tools tools has 1, which is not"));
  CHECK(row(f, R"("parallel_tool_calls": 1)").error ==
        "body.parallel_tool_calls must be true or false, not 1");
  const std::string json = R"("response_format": {"type": "json_object"})";
  CHECK(row(f, json).error == "");
  CHECK(
      row(f, json + R"(, "tool_choice": "required")").error ==
      "body.tool_choice has no place beside response_format or structured_outputs, which say what the whole "
      "answer is");
  CHECK(row(g, json).error.starts_with("body.tools with strict functions has no place"));
  CHECK(row(f, json + R"(, "parallel_tool_calls": false)")
            .error.starts_with("body.parallel_tool_calls has no"));
}

TEST_CASE("echo, seeds of any sign, and options of vLLM", "[input]") {
  const auto row = [](const std::string& more) {
    return row_of(kCompletions, R"("model": "tiny-moe", "prompt": "a", )" + more);
  };
  const PromptRecord echo = row(R"("echo": true, "logprobs": 3, "prompt_logprobs": 1)");
  CHECK(echo.error == "");
  CHECK(echo.echo);
  CHECK(echo.sampling.prompt_logprobs == 3);
  CHECK(row(R"("echo": true)").sampling.prompt_logprobs == -1);
  CHECK_FALSE(row(R"("echo": false, "logprobs": 3)").echo);
  CHECK(row(R"("echo": 1)").error == "body.echo must be true or false, not 1");
  CHECK(row(R"("echo": true, "logprobs": 0, "prompt_logprobs": true, "prompt_logprobs_start": 1)")
            .error.starts_with("body.prompt_logprobs_start has no place beside echo"));
  CHECK(fault_of_chat(R"("echo": true)").starts_with("there is no field \"body.echo\""));
  CHECK(row(R"("seed": -1)").sampling.draw.seed == UINT64_MAX);
  CHECK(row(R"("seed": -9223372036854775808)").sampling.draw.seed == uint64_t{1} << 63);
  CHECK(row(R"("seed": 1.5)").error.starts_with("seed must be an integer"));
  const SamplingParams sampling =
      row(R"("include_stop_str_in_output": true, "skip_special_tokens": false, "truncate_prompt_tokens": 9)")
          .sampling;
  CHECK(sampling.include_stop_str_in_output);
  CHECK_FALSE(sampling.skip_special_tokens);
  CHECK(sampling.truncate_prompt_tokens == 9);
  CHECK(row(R"("truncate_prompt_tokens": -1)").sampling.truncate_prompt_tokens == -1);
  CHECK(row(R"("truncate_prompt_tokens": 0)").error ==
        "truncate_prompt_tokens must be null, -1 or an integer of at least 1, not 0");
}

TEST_CASE("a completion's list of prompts is a row each", "[input]") {
  const auto body = [](const std::string& prompt) {
    return R"("model": "tiny-moe", "n": 2, "prompt": )" + prompt;
  };
  std::string lines = line_of(kCompletions, body(R"(["a", "b", "c"])"));
  for (const auto& [id, prompt] : {std::pair{"x", R"("d")"}, {"y", "[[5, 6], [7]]"}, {"z", "[8, 9]"}}) {
    std::string line = line_of(kCompletions, body(prompt));
    lines += line.replace(line.find("r-1"), 3, id);
  }
  lines.replace(lines.find("\"prompt\": [8"), 8, "\"\\u0070rompt\"");  // spelled otherwise
  const InputFixture input("a.jsonl", lines);
  const InputSummary summary = input.check();
  CHECK(summary.num_rows == 7);
  const auto source = open_input(input.job, InputFixture::kVocabulary, summary);
  const auto text_of = [](const PromptRecord& record) {
    return fmt::format(
        "{} {} {}/{} {}", record.row, record.id, record.part.index, record.part.count,
        record.prompt ? *record.prompt : fmt::format("{}", fmt::join(*record.prompt_token_ids, ",")));
  };
  std::vector<std::string> rows;
  PromptRecord record;
  while (source->next(record)) rows.push_back(text_of(record));
  CHECK(rows == std::vector<std::string>{"0 r-1 0/3 a", "1 r-1 1/3 b", "2 r-1 2/3 c", "3 x 0/1 d",
                                         "4 y 0/2 5,6", "5 y 1/2 7", "6 z 0/1 8,9"});
  for (const uint64_t row : {uint64_t{2}, uint64_t{0}, uint64_t{5}, uint64_t{6}, uint64_t{3}, uint64_t{1}}) {
    source->seek(row);
    REQUIRE(source->next(record));
    CHECK(text_of(record) == rows[row]);
  }
  source->seek(7);
  CHECK_FALSE(source->next(record));

  // What is wrong with one prompt is wrong with the line, and said once.
  const auto faults = [&](const std::string& prompt) {
    return InputFixture("a.jsonl", line_of(kCompletions, body(prompt))).faults();
  };
  CHECK(faults(R"(["a", "", "b"])") == "a.jsonl:1: the prompt is empty");
  CHECK(faults(R"(["a", 3])") == "a.jsonl:1: prompt must be a text, not 3");
  std::string many = "[\"a\"";
  for (int i = 1; i < 2049; ++i) many += ", \"a\"";
  CHECK(faults(many + "]") ==
        "a.jsonl:1: body.prompt is a list of 2049 prompts, and a line has at most 2048");
}

TEST_CASE("content that is a list of text parts is a text", "[input]") {
  const auto row = [](const std::string& content) {
    return row_of(kChat,
                  R"("model": "tiny-moe", "messages": [{"role": "user", "content": )" + content + "}]");
  };
  CHECK(row(R"([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}])").messages ==
        R"({"messages":[{"role":"user","content":"a\nb"}]})");
  CHECK(row(R"([{"type": "text", "text": "a"}, {"type": "image_url", "image_url": {"url": "x"}}])").error ==
        "messages[0].content[1] has the type \"image_url\", and this program takes parts of type \"text\" "
        "alone");
  CHECK(row(R"([3])").error.starts_with("messages[0].content[0] must be {\"type\": \"text\""));
  CHECK(InputFixture(
            "a.jsonl",
            "{\"messages\": [{\"role\": \"user\", \"content\": [{\"type\": \"text\", \"text\": \"a\"}]}]}\n")
            .row()
            .messages == R"({"messages":[{"role":"user","content":"a"}]})");
}

TEST_CASE("bad OpenAI lines keep their custom_id and the model they asked for", "[input]") {
  const std::string good = line_of(kCompletions, R"("model": "org/tiny-moe", "prompt": "Hi")");
  const std::string other_url =
      R"({"custom_id": "c", "method": "POST", "url": "/v1/embeddings", "body": {"model": "m", "prompt": "Hi"}})";
  const std::vector<PromptRecord> rows =
      InputFixture("a.jsonl", "no JSON\n[1]\n" + good + other_url + "\n" +
                                  R"({"custom_id": 5, "method": "POST"})" + "\n" +
                                  R"({"custom_id": "d", "body": )" + std::string(200, '[') +
                                  std::string(200, ']') + "}\n")
          .rows();
  REQUIRE(rows.size() == 6);
  CHECK(!rows[0].error.empty());
  CHECK(rows[0].id.empty());
  CHECK(!rows[1].error.empty());
  CHECK(rows[2].error.empty());
  CHECK(rows[2].model == "org/tiny-moe");
  CHECK(rows[3].id == "c");
  CHECK(!rows[3].error.empty());
  CHECK(rows[4].id == "5");
  CHECK(rows[4].id_kind == IdKind::integer);
  CHECK_THAT(rows[4].error, ContainsSubstring("custom_id must be a text that is not empty, not 5"));
  CHECK(rows[5].id == "d");
  CHECK(rows[5].error == "the line is nested deeper than 100 levels");
}

TEST_CASE("a file is of OpenAI batch lines when its first line is one", "[input]") {
  const std::string openai = line_of(kCompletions, R"("model": "tiny-moe", "prompt": "Hi")");
  CHECK(InputFixture("a.jsonl", openai).check().openai);
  CHECK(!InputFixture("a.jsonl", "{\"prompt\": \"x\"}\n").check().openai);
  CHECK_THAT(InputFixture("a.jsonl", openai + "{\"prompt\": \"x\"}\n").faults(),
             ContainsSubstring("a.jsonl:2: there is no field \"prompt\""));
  CHECK_THAT(InputFixture("a.jsonl", openai + openai).faults(),
             ContainsSubstring("a.jsonl:2: the id \"r-1\" is a.jsonl:1's already"));
}

TEST_CASE("a model goes by its folder's name, its path, and its name in a Hugging Face cache", "[input]") {
  CHECK(model_names_of("data/tiny-moe/")[0] == "tiny-moe");
  CHECK(model_names_of("/m/models--Qwen--Qwen3-30B-A3B/snapshots/abc") ==
        std::vector<std::string>{"Qwen/Qwen3-30B-A3B", "abc", "abc",
                                 "/m/models--Qwen--Qwen3-30B-A3B/snapshots/abc", "Qwen3-30B-A3B"});
}
