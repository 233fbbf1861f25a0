// `input.truncate_prompt: left`: what is kept of a prompt, and where that is decided.
#include "job/truncation.h"

#include <numeric>

#include "coordinator/prompt_ids.h"
#include "engine/preparer.h"
#include "input_fixture.h"
#include "tests/catch.h"

using namespace moerun;

namespace {

PromptRecord counting(int32_t length, int32_t max_tokens) {
  PromptRecord record;
  record.prompt_token_ids.emplace(static_cast<size_t>(length));
  std::iota(record.prompt_token_ids->begin(), record.prompt_token_ids->end(), 0);
  record.sampling.max_tokens = max_tokens;
  return record;
}

Job truncating(const InputFixture& input, int64_t max_model_len) {
  Job job = input.job;
  job.input.truncate_prompt = Job::Input::TruncatePrompt::left;
  job.model.max_model_len = max_model_len;
  return job;
}

}  // namespace

TEST_CASE("the end of a prompt is kept that leaves room for the whole answer", "[truncation]") {
  for (const auto& [length, max_tokens, kept] :
       {std::tuple{100, 10, 90}, {90, 10, 90}, {89, 10, 89}, {100, 0, 100}, {150, 0, 100}, {100, 99, 1}}) {
    CAPTURE(length, max_tokens);
    PromptRecord record = counting(length, max_tokens);
    record.sampling.prompt_logprobs_start = 20;
    truncate_left(record, {100, true});
    CHECK(record.prompt_truncated == length - kept);
    REQUIRE(record.prompt_token_ids->size() == static_cast<size_t>(kept));
    CHECK(record.prompt_token_ids->front() == length - kept);
    CHECK(record.prompt_token_ids->back() == length - 1);
    // The token that scores begin at is the same one, or the first that is left.
    CHECK(record.sampling.prompt_logprobs_start == std::max(20 - (length - kept), 0));
    const PromptRecord once = record;
    truncate_left(record, {100, true});
    CHECK(record.prompt_token_ids == once.prompt_token_ids);
    CHECK(record.prompt_truncated == once.prompt_truncated);
  }
  CHECK(no_room_for_prompt({.max_tokens = 99}, {100, true}).empty());
  CHECK_THAT(no_room_for_prompt({.max_tokens = 100}, {100, true}),
             ContainsSubstring("max_tokens is 100, and model.max_model_len 100"));
}

TEST_CASE("token ids are truncated where the input is read, and scores may begin in what is dropped",
          "[truncation]") {
  const InputFixture input(
      "in.jsonl",
      "{\"prompt_token_ids\": [1, 2, 3, 4, 5, 6], \"max_tokens\": 4, \"prompt_logprobs\": true, "
      "\"prompt_logprobs_start\": 5}\n"
      "{\"prompt_token_ids\": [1, 2], \"max_tokens\": 4}\n");
  const Job job = truncating(input, 8);
  const auto source =
      open_input(job, InputFixture::kVocabulary, check_input(job, InputFixture::kVocabulary, 0));
  PromptRecord record;
  REQUIRE(source->next(record));
  CHECK(record.prompt_token_ids == std::vector<int32_t>{3, 4, 5, 6});
  CHECK(record.prompt_truncated == 2);
  CHECK(record.sampling.prompt_logprobs_start == 3);
  REQUIRE(source->next(record));
  CHECK(record.prompt_token_ids == std::vector<int32_t>{1, 2});
  CHECK(record.prompt_truncated == 0);

  Job none = job;
  none.input.truncate_prompt = Job::Input::TruncatePrompt::none;
  const auto as_it_is =
      open_input(none, InputFixture::kVocabulary, check_input(none, InputFixture::kVocabulary, 0));
  REQUIRE(as_it_is->next(record));
  CHECK(record.prompt_token_ids->size() == 6);
  CHECK(record.prompt_truncated == -1);
}

TEST_CASE("a text that is truncated stands in the order by the ids that are left", "[truncation]") {
  Tokenizer tokenizer = Tokenizer::load(kTinyModel);
  const ChatTemplate chat = ChatTemplate::from_text(
      "{% for message in messages %}[{{ message.role }}] {{ message.content }}{% endfor %}", "test");
  PromptIds ids(&tokenizer, &chat);
  std::string text;
  for (int i = 0; i < 60; ++i) text += "Once upon a time there was a small robot. ";
  const auto sampling = [](int32_t max_tokens) {
    SamplingParams out;
    out.max_tokens = max_tokens;
    return out;
  };
  const std::vector<int32_t> all = tokenizer.encode_prompt(text);
  REQUIRE(all.size() > 100);
  PromptRecord record{.prompt = text, .sampling = sampling(16)};
  ids.truncate_text(record, {80, true});
  CHECK_FALSE(record.prompt);
  CHECK(record.prompt_token_ids == std::vector<int32_t>(all.end() - 64, all.end()));
  CHECK(record.prompt_truncated == static_cast<int32_t>(all.size()) - 64);

  PromptRecord talk{.messages = R"({"messages": [{"role": "user", "content": ")" + text + R"("}]})",
                    .sampling = sampling(16)};
  ids.truncate_text(talk, {80, true});
  CHECK_FALSE(talk.messages);
  CHECK(talk.prompt_token_ids == record.prompt_token_ids);
  CHECK(talk.prompt_truncated > record.prompt_truncated);

  // What fits, what is an error, and what is wrong stay as they are.
  PromptRecord fits{.prompt = text, .sampling = sampling(16)};
  ids.truncate_text(fits, {static_cast<int64_t>(all.size()) + 16, true});
  CHECK(fits.prompt == text);
  CHECK_FALSE(fits.prompt_token_ids);
  PromptRecord beyond{.prompt = text, .sampling = sampling(16)};
  beyond.sampling.prompt_logprobs = 0;
  beyond.sampling.prompt_logprobs_start = static_cast<int32_t>(all.size());
  ids.truncate_text(beyond, {80, true});
  CHECK(beyond.prompt == text);

  // The leader comes to the same, and says what is wrong.
  Preparer preparer(&tokenizer, &chat, {.max_model_len = 80, .truncate_prompts = true},
                    tokenizer.vocab_size());
  for (const PromptRecord& one : {PromptRecord{.prompt = text, .sampling = sampling(16)}, record}) {
    const auto prepared = preparer.prepare(one);
    REQUIRE(std::holds_alternative<Sequence>(prepared));
    const auto prompt = std::get<Sequence>(prepared).prompt();
    CHECK(std::vector<int32_t>(prompt.begin(), prompt.end()) == record.prompt_token_ids);
  }
  const auto answered = preparer.prepare(beyond);
  REQUIRE(std::holds_alternative<RowResult>(answered));
  CHECK_THAT(std::get<RowResult>(answered).error, ContainsSubstring("none is left to score"));
  CHECK(std::get<RowResult>(answered).prompt_truncated == 0);
}
