#include <string>

#include "io/json_row.h"
#include "tests/unit/input_fixture.h"

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
          "stream": false, "top_k": 9, "chat_template_kwargs": {"enable_thinking": false}, "tools": [{"a": 1}])");
  CHECK(chat.error.empty());
  CHECK(chat.id == "r-1");
  CHECK(chat.endpoint == Endpoint::chat_completions);
  CHECK(
      chat.messages ==
      R"({"messages":[{"role":"user","content":"Hi"}],"tools":[{"a":1}],"chat_template_kwargs":{"enable_thinking":false}})");
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
  CHECK(row_of(kCompletions, R"("model": "tiny-moe", "prompt": ["a", "b"])").error ==
        "body.prompt is a list of prompts: a line has one");
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
  CHECK(
      fault_of_chat(R"("tools": [{"a": 1}], "tool_choice": "none")").starts_with("body.tool_choice is not"));
  CHECK(fault_of_chat(R"("tool_choice": "required")").starts_with("body.tool_choice is not supported"));
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
  CHECK(row_of(kChat, kHello + R"(, "tools": [{"a": 1}], "tool_choice": "auto")").error.empty());
  CHECK(
      row_of(kCompletions, R"("model": "tiny-moe", "prompt": "a", "echo": false, "best_of": 1, "suffix": "")")
          .error.empty());
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
