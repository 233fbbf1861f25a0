// What ends an answer.
#include "engine/sequence.h"

#include <nlohmann/json.hpp>

#include "engine/scheduler.h"
#include "io/openai_line.h"
#include "io/segment.h"
#include "tests/catch.h"
#include "tests/unit/text_fixture.h"

using namespace moerun;
using Json = nlohmann::json;

namespace {

const AnswerLimits kLimits{.max_model_len = 100, .eos_token_ids = {4093}};

/// Feeds an answer's tokens until the sequence says that it has ended.
RowResult answer_of(const SamplingParams& sampling, const std::vector<int32_t>& tokens,
                    const Tokenizer* tokenizer, const AnswerLimits& limits = kLimits) {
  Sequence sequence({.sampling = sampling}, {1, 2, 3}, tokenizer);
  for (const int32_t token : tokens)
    if (sequence.append({.token = token}, limits)) return sequence.finish(sequence.finish_reason()).value();
  FAIL("the answer never ended");
  return {};
}

}  // namespace

TEST_CASE("stop strings end an answer before them, also across tokens and in the middle of one") {
  Tokenizer tokenizer = Tokenizer::load(kTinyModel);
  const std::string text = "The whale swam, and the sailor sang to the morning sea.";
  const std::vector<int32_t> tokens = tokenizer.encode(text);
  REQUIRE(tokens.size() > 8);
  for (const std::string& stop : {std::string(", and the sail"), std::string("hale"), std::string("a"),
                                  std::string(" sang to the morn"), std::string("sea.")}) {
    INFO(stop);
    const RowResult result = answer_of({.max_tokens = 90, .stop = {"never", stop}}, tokens, &tokenizer);
    CHECK(result.text == text.substr(0, text.find(stop)));
    CHECK(result.finish_reason == FinishReason::stop);
    // The tokens are those up to the one that completed the stop string.
    const std::vector<int32_t> before(result.token_ids.begin(), result.token_ids.end() - 1);
    CHECK(tokenizer.decode(before, true).find(stop) == std::string::npos);
    CHECK(tokenizer.decode(result.token_ids, true).find(stop) != std::string::npos);
  }
  // Of several, the one that is there first.
  CHECK(answer_of({.max_tokens = 90, .stop = {"sailor", "whale"}}, tokens, &tokenizer).text == "The ");
}

TEST_CASE("end-of-sequence, stop token ids and lengths end an answer, each with its reason") {
  Tokenizer tokenizer = Tokenizer::load(kTinyModel);
  const std::vector<int32_t> tokens{300, 301, 4093, 302, 303, 304};
  RowResult result = answer_of({.max_tokens = 50}, tokens, &tokenizer);
  CHECK(result.token_ids == std::vector<int32_t>{300, 301, 4093});
  CHECK(result.finish_reason == FinishReason::stop);
  CHECK(result.text == tokenizer.decode(std::vector<int32_t>{300, 301}, true));

  result = answer_of({.max_tokens = 5, .ignore_eos = true}, tokens, nullptr);
  CHECK(result.token_ids == std::vector<int32_t>{300, 301, 4093, 302, 303});
  CHECK(result.finish_reason == FinishReason::length);
  CHECK(result.text.empty());

  result = answer_of({.max_tokens = 50, .stop_token_ids = {7, 303}, .ignore_eos = true}, tokens, nullptr);
  CHECK(result.token_ids.back() == 303);
  CHECK(result.finish_reason == FinishReason::stop);

  result = answer_of({.max_tokens = 50}, tokens, nullptr, {.max_model_len = 5, .eos_token_ids = {4093}});
  CHECK(result.token_ids == std::vector<int32_t>{300, 301});  // 3 + 2 tokens
  CHECK(result.finish_reason == FinishReason::length);
}

TEST_CASE(
    "before min_tokens, end-of-sequence and stop token ids cannot be chosen and stop strings do not stop") {
  Tokenizer tokenizer = Tokenizer::load(kTinyModel);
  Scheduler scheduler({.max_num_seqs = 2,
                       .max_num_batched_tokens = 64,
                       .block_size = 16,
                       .num_blocks = 8,
                       .limits = kLimits});
  const SamplingParams sampling{.max_tokens = 9, .min_tokens = 2, .stop = {"e"}, .stop_token_ids = {8}};
  scheduler.add(Sequence({.sampling = sampling}, {1, 2, 3}, &tokenizer));
  const std::vector<int32_t> answer = tokenizer.encode("e the e e");
  REQUIRE(answer.size() >= 4);
  for (size_t made = 0;; ++made) {
    const StepPlan plan = scheduler.schedule();
    REQUIRE(plan.logit_rows.size() == 1);
    CHECK(plan.banned_tokens == (made < 2 ? std::vector<int32_t>{4093, 8} : std::vector<int32_t>{}));
    CHECK(plan.logit_rows[0].banned_end - plan.logit_rows[0].banned_begin == (made < 2 ? 2 : 0));
    const auto finished = scheduler.postprocess(plan, {{.token = answer[made]}});
    if (finished.empty()) continue;
    CHECK(finished[0].token_ids.size() >= 2);
    CHECK(finished[0].finish_reason == FinishReason::stop);
    break;
  }
}

TEST_CASE("penalties look at prompt and answer") {
  Scheduler scheduler({.max_num_seqs = 2,
                       .max_num_batched_tokens = 64,
                       .block_size = 16,
                       .num_blocks = 8,
                       .limits = kLimits});
  scheduler.add(
      Sequence({.sampling = {.draw = {.frequency_penalty = 1}, .max_tokens = 9}}, {5, 6, 5}, nullptr));
  for (const int32_t token : {6, 7, 7}) scheduler.postprocess(scheduler.schedule(), {{.token = token}});
  const StepPlan plan = scheduler.schedule();
  CHECK(plan.history_tokens == std::vector<int32_t>{5, 6, 7});
  CHECK(plan.history_counts == std::vector<int32_t>{0, 1, 2});
  CHECK(plan.logit_rows[0].history_begin == 0);
  CHECK(plan.logit_rows[0].history_end == 3);
}

TEST_CASE("the text may end behind its stop string, and have special tokens in it") {
  Tokenizer tokenizer = Tokenizer::load(kTinyModel);
  const std::string text = "The whale swam, and the sailor sang";
  std::vector<int32_t> tokens = tokenizer.encode(text);
  SamplingParams sampling{
      .max_tokens = 90, .stop = {"sail", "and the s"}, .include_stop_str_in_output = true};
  CHECK(answer_of(sampling, tokens, &tokenizer).text == "The whale swam, and the s");
  sampling.stop = {"and the", "and"};  // of two that begin together the one that was complete first
  CHECK(answer_of(sampling, tokens, &tokenizer).text == "The whale swam, and");

  const std::string end(tokenizer.token_text(4093, false));
  tokens.push_back(4093);
  sampling.stop.clear();
  CHECK(answer_of(sampling, tokens, &tokenizer).text == text);  // what ends it is special, and left out
  sampling.skip_special_tokens = false;
  CHECK(answer_of(sampling, tokens, &tokenizer).text == text + end);
  sampling.include_stop_str_in_output = false;
  CHECK(answer_of(sampling, tokens, &tokenizer).text == text);
  tokens.insert(tokens.begin(), 4093);
  sampling.ignore_eos = true;
  sampling.max_tokens = static_cast<int32_t>(tokens.size());
  CHECK(answer_of(sampling, tokens, &tokenizer).text == end + text + end);
  // Then a stop string is looked for in it as it is.
  sampling.stop = {"The whale"};
  CHECK(answer_of(sampling, tokens, &tokenizer).text == end);
}

TEST_CASE("an answer to a chat is split at the markers of its family") {
  Json file = Json::parse(read_text_file(kTinyModel + "/tokenizer.json"));
  int32_t id = 4096;  // behind the tiny model's tokens
  for (const char* const marker : {"<think>", "</think>", "<tool_call>", "</tool_call>"})
    file["added_tokens"].push_back({{"id", id++},
                                    {"content", marker},
                                    {"special", false},
                                    {"single_word", false},
                                    {"lstrip", false},
                                    {"rstrip", false},
                                    {"normalized", false}});
  Tokenizer tokenizer = Tokenizer::from_json(file.dump(), "tokenizer.json");
  const auto answer = [&](const std::string& prompt, const std::string& text, Endpoint endpoint) {
    PromptRecord record{.sampling = {.max_tokens = 900}, .endpoint = endpoint};
    record.tools = R"([{"type": "function", "function": {"name": "f"}}])";
    Sequence sequence(std::move(record), tokenizer.encode(prompt), &tokenizer);
    AnswerLimits limits = kLimits;
    limits.max_model_len = 1000;
    for (const int32_t token : tokenizer.encode(text)) sequence.append({.token = token}, limits);
    return sequence.finish(FinishReason::stop).value();
  };
  const std::string call = R"(<tool_call>{"name": "f", "arguments": {}}</tool_call>)";
  RowResult result = answer("Hi", "<think>ab</think>" + call, Endpoint::chat_completions);
  CHECK(result.chat.has_reasoning);
  CHECK(result.chat.reasoning_tokens == static_cast<int32_t>(tokenizer.encode("ab").size()));
  CHECK(result.chat.tool_calls == R"([{"name":"f","arguments":"{}"}])");
  std::string line;
  append_openai_line({&result, 1}, {.model = "m", .created = 1}, line);
  const Json choice = Json::parse(line)["response"]["body"]["choices"][0];
  CHECK(choice["finish_reason"] == "tool_calls");
  CHECK(choice["message"]["content"].is_null());
  CHECK(choice["message"]["reasoning_content"] == "ab");
  CHECK(choice["message"]["tool_calls"][0]["function"] == Json({{"name", "f"}, {"arguments", "{}"}}));
  CHECK(choice["message"]["tool_calls"][0]["id"].get<std::string>().starts_with("call_"));
  CHECK(Json::parse(line)["response"]["body"]["usage"]["completion_tokens_details"]["reasoning_tokens"] ==
        tokenizer.encode("ab").size());

  result = answer("Hi <think>\n", "ab</think>c", Endpoint::chat_completions);
  CHECK(result.text.substr(result.chat.reasoning.begin, result.chat.reasoning.end) == "ab");
  CHECK(result.chat.reasoning_tokens == static_cast<int32_t>(tokenizer.encode("ab").size()));
  // What was split goes through the segments.
  std::string packed;
  pack_row(result, packed);
  CHECK(unpack_row(packed).chat == result.chat);
  CHECK_FALSE(answer("Hi", "ab</think>c", Endpoint::chat_completions).chat.known);
  CHECK_FALSE(answer("Hi", "<think>ab</think>" + call, Endpoint::completions).chat.known);
}
