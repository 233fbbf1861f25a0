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
          "logprobs": true, "top_logprobs": 4, "presence_penalty": 1, "frequency_penalty": null, "n": 1,
          "stream": false, "top_k": 9, "chat_template_kwargs": {"enable_thinking": false}, "tools": [{"a": 1}])");
  CHECK(chat.error.empty());
  CHECK(chat.id == "r-1");
  CHECK(chat.endpoint == Endpoint::chat_completions);
  CHECK(chat.messages ==
        R"({"messages":[{"role":"user","content":"Hi"}],"tools":[{"a":1}],"enable_thinking":false})");
  const SamplingParams expected{.max_tokens = 5,
                                .temperature = 0.25f,
                                .top_p = 0.5f,
                                .top_k = 9,
                                .presence_penalty = 1,
                                .seed = 3,
                                .stop = {"x"},
                                .logprobs = 4};
  CHECK(chat.sampling == expected);

  const PromptRecord text =
      row_of(kCompletions, R"("model": "org/tiny-moe", "prompt": "Hi", "max_tokens": 2, "logprobs": 3)");
  CHECK(text.error.empty());
  CHECK(text.endpoint == Endpoint::completions);
  CHECK(text.prompt == "Hi");
  CHECK(text.sampling.logprobs == 3);
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
        "prompt_token_ids must be a list of token ids, not [\"a\",\"b\"]");
  CHECK(fault_of_chat(R"("max_tokens": 1, "max_completion_tokens": 2)") ==
        "body has max_tokens and max_completion_tokens; one of them must go");
  CHECK(fault_of_chat(R"("n": 2)") == "body.n is not supported other than as 1");
  CHECK(fault_of_chat(R"("stream": true)") == "body.stream is not supported other than as false");
  CHECK(fault_of_chat(R"("response_format": {"type": "json_object"})")
            .starts_with("there is no field \"body.response_format\"; did you mean"));
  CHECK(fault_of_chat(R"("top_logprobs": 2)") == "body.top_logprobs needs body.logprobs: true");
  CHECK(fault_of_chat(R"("logprobs": 2)") == "body.logprobs must be true or false, not 2");
  CHECK(fault_of_chat(R"("temperature": 200)") == "temperature must be a number from 0 to 100, not 200");
  CHECK(fault_of_chat(R"("prompt": "a")").starts_with("there is no field \"body.prompt\""));
  CHECK_THAT(fault_of_chat(R"("chat_template_kwargs": {"x": 1})"),
             ContainsSubstring("chat_template_kwargs must be"));

  const auto fault = [](const std::string& line) { return InputFixture("a.jsonl", line).row().error; };
  CHECK(
      fault(R"({"custom_id": "", "method": "GET", "url": "/v1/completions", "body": [], "x": 1})") ==
      "there is no field \"x\"; did you mean \"url\"?; custom_id must be a text that is not empty, not \"\"; "
      "method must be \"POST\", not \"GET\"; body must be an object, not []");
  CHECK(fault(R"({"custom_id": "a"})") == "method is missing; url is missing; body is missing");
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
