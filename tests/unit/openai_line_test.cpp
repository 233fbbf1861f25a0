#include <limits>
#include <nlohmann/json.hpp>
#include <string>

#include "io/openai_line.h"
#include "tests/catch.h"
#include "tests/unit/text_fixture.h"

using namespace moerun;

namespace {

/// Two characters of several tokens, a word, and the end of sequence.
RowResult answer(const Tokenizer& tokenizer, Endpoint endpoint) {
  RowResult result{.row = 3, .id = "a", .endpoint = endpoint, .model = "org/tiny-moe", .prompt_length = 2};
  Tokenizer encoder = Tokenizer::load(kTinyModel);
  result.token_ids = encoder.encode("\xf0\x9f\x91\xbe you");
  result.text = tokenizer.decode(result.token_ids, true);
  result.finish_reason = FinishReason::stop;
  result.num_top_logprobs = 1;
  for (size_t i = 0; i < result.token_ids.size(); ++i) {
    result.logprobs.push_back(-0.5f);
    result.top_logprobs.emplace_back(result.token_ids[i], -0.5f);
  }
  return result;
}

nlohmann::json line_of(const RowResult& result, const OpenAiLines& lines) {
  std::string text;
  append_openai_line({&result, 1}, lines, text);
  return nlohmann::json::parse(text);
}

}  // namespace

TEST_CASE("log-probabilities of OpenAI lines carry the tokens' texts and bytes", "[store]") {
  const auto tokenizer = std::make_shared<const Tokenizer>(Tokenizer::load(kTinyModel));
  const OpenAiLines lines{.model = "tiny-moe", .created = 1, .tokenizer = tokenizer};
  const RowResult chat = answer(*tokenizer, Endpoint::chat_completions);
  const auto body = line_of(chat, lines)["response"]["body"];
  CHECK(body["model"] == "org/tiny-moe");
  const auto content = body["choices"][0]["logprobs"]["content"];
  REQUIRE(content.size() == chat.token_ids.size());
  std::string all;
  for (const auto& token : content) {
    for (const int byte : token["bytes"]) all += static_cast<char>(byte);
    CHECK(token["logprob"] == -0.5);
    CHECK(token["top_logprobs"][0]["token"] == token["token"]);
    CHECK(token["top_logprobs"][0]["bytes"] == token["bytes"]);
  }
  CHECK(all == "\xf0\x9f\x91\xbe you");
  CHECK(content.back()["token"] == " you");
  CHECK_THAT(content[0]["token"].get<std::string>(), ContainsSubstring("bytes:\\xf0"));

  const RowResult completion = answer(*tokenizer, Endpoint::completions);
  const auto logprobs = line_of(completion, lines)["response"]["body"]["choices"][0]["logprobs"];
  CHECK(logprobs["tokens"].back() == " you");
  CHECK(logprobs["top_logprobs"].back() == nlohmann::json{{" you", -0.5}});
  REQUIRE(logprobs["text_offset"].size() == completion.token_ids.size());
  CHECK(logprobs["text_offset"][0] == 0);
  CHECK(logprobs["text_offset"].back() == 1);  // characters, not bytes
}

TEST_CASE("the most likely at a prompt's positions are spelled as vLLM does", "[store]") {
  const auto tokenizer = std::make_shared<const Tokenizer>(Tokenizer::load(kTinyModel));
  const OpenAiLines lines{.model = "tiny-moe", .created = 1, .tokenizer = tokenizer};
  RowResult result = answer(*tokenizer, Endpoint::completions);
  const int32_t you = result.token_ids.back();
  const float none = std::numeric_limits<float>::quiet_NaN();
  result.prompt_length = 3;
  result.prompt_logprobs = {none, -0.5F, -7};
  result.num_prompt_top_logprobs = 2;
  result.prompt_top_logprobs = {{-1, none}, {-1, none}, {300, -0.25F}, {you, -0.5F}, {301, -1}, {302, -1.5F}};
  result.scored_tokens = {5, you, 303};
  const auto choice = line_of(result, lines)["response"]["body"]["choices"][0];
  const auto prompt = choice["prompt_logprobs"];
  REQUIRE(prompt.size() == 3);
  CHECK(prompt[0].is_null());
  CHECK(prompt[1].size() == 2);
  CHECK(prompt[1][std::to_string(you)] ==
        nlohmann::json{{"logprob", -0.5}, {"rank", 2}, {"decoded_token", " you"}});
  CHECK(prompt[1]["300"]["rank"] == 1);
  CHECK(prompt[1]["300"]["logprob"] == -0.25);
  CHECK(prompt[2].size() == 3);
  CHECK(prompt[2]["303"]["logprob"] == -7);
  CHECK(prompt[2]["303"]["rank"].is_null());  // more likely than it are more than were asked for
  CHECK(prompt[2]["302"]["rank"] == 2);
  // The token itself comes first.
  std::string text;
  append_openai_line({&result, 1}, lines, text);
  CHECK(text.find(R"({"303": )") < text.find(R"("301": )"));

  result.endpoint = Endpoint::chat_completions;
  const auto body = line_of(result, lines)["response"]["body"];
  CHECK(body["prompt_logprobs"] == prompt);
  CHECK_FALSE(body["choices"][0].contains("prompt_logprobs"));
  result.num_prompt_top_logprobs = 0;
  result.prompt_top_logprobs.clear();
  CHECK(line_of(result, lines)["response"]["body"]["choices"][0]["prompt_logprobs"] ==
        nlohmann::json{nullptr, -0.5, -7.0});
}

TEST_CASE("tokens without a text are named by their ids", "[store]") {
  const auto tokenizer = std::make_shared<const Tokenizer>(Tokenizer::load(kTinyModel));
  const RowResult padded{.id = "a",
                         .endpoint = Endpoint::chat_completions,
                         .token_ids = {1 << 20},
                         .finish_reason = FinishReason::stop,
                         .logprobs = {-1}};
  const auto token =
      line_of(padded, {.tokenizer = tokenizer})["response"]["body"]["choices"][0]["logprobs"]["content"][0];
  CHECK(token["token"] == "token_id:1048576");
  CHECK(token["bytes"].is_null());
}

TEST_CASE("error lines have the four fields of a batch line, whatever the endpoint", "[store]") {
  const auto line = line_of({.row = 1, .error = "no JSON"}, {});
  CHECK(line == nlohmann::json{{"id", "batch_req_1"},
                               {"custom_id", nullptr},
                               {"response", nullptr},
                               {"error", {{"code", "invalid_request"}, {"message", "no JSON"}}}});
  CHECK(line_of({.id = "5", .id_kind = IdKind::integer, .error = "x"}, {})["custom_id"] == 5);
}
