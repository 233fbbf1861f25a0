#include <string>

#include "io/id_set.h"
#include "io/json_line.h"
#include "io/line_reader.h"
#include "tests/unit/input_fixture.h"

using namespace moerun;

namespace {

std::string fault_of(const std::string& line) { return InputFixture("a.jsonl", line + "\n").row().error; }

}  // namespace

TEST_CASE("JSONL rows carry a prompt, token ids or messages, an id and sampling of their own", "[input]") {
  InputFixture input("a.jsonl",
                     "{\"prompt\": \"Hello\", \"id\": \"x\"}\r\n"
                     "\n"
                     "{\"prompt_token_ids\": [0, 4095], \"id\": 7, \"max_tokens\": 3, \"stop\": \"a\"}\n"
                     "{\"messages\": [{\"role\": \"user\", \"content\": \"ü\"}], \"enable_thinking\": false,"
                     " \"logprobs\": 2, \"temperature\": 0.5}");
  input.job.sampling.max_tokens = 64;
  input.job.sampling.draw.logprobs = 0;
  const std::vector<PromptRecord> rows = input.rows();
  REQUIRE(rows.size() == 3);
  for (const PromptRecord& row : rows) CHECK(row.error.empty());

  CHECK(rows[0].prompt == "Hello");
  CHECK(rows[0].id == "x");
  CHECK(rows[0].sampling == input.job.sampling);

  CHECK(rows[1].row == 1);
  CHECK(rows[1].prompt_token_ids == std::vector<int32_t>{0, 4095});
  CHECK(rows[1].id == "7");
  CHECK(rows[1].sampling.max_tokens == 3);
  CHECK(rows[1].sampling.stop == std::vector<std::string>{"a"});
  CHECK(rows[1].sampling.draw.logprobs == 0);

  CHECK(rows[2].messages == R"({"messages":[{"role":"user","content":"ü"}],"enable_thinking":false})");
  CHECK(rows[2].sampling.draw.logprobs == 2);
  CHECK(rows[2].sampling.draw.temperature == 0.5f);
}

TEST_CASE("What stands beside the messages goes to the chat template", "[input]") {
  const std::string hi = R"({"messages": [{"role": "user", "content": "Hi"}], )";
  const auto row_of = [&](const std::string& more) {
    return InputFixture("a.jsonl", hi + more + "}\n").row();
  };
  const PromptRecord row = row_of(
      R"("chat_template_kwargs": {"effort": "low", "n": 18446744073709551615, "f": 2.0}, "documents": [], )"
      R"("add_generation_prompt": false, "tools": null)");
  CHECK(row.error.empty());
  CHECK(row.messages ==
        R"({"messages":[{"role":"user","content":"Hi"}],"documents":[],"add_generation_prompt":false,)"
        R"("chat_template_kwargs":{"effort":"low","n":18446744073709551615,"f":2.0}})");
  CHECK(row_of(R"("chat_template_kwargs": 3)").error == "chat_template_kwargs must be an object, not 3");
  CHECK(row_of(R"("documents": {})").error == "documents must be a list, not {}");
  CHECK_THAT(row_of(R"("chat_template_kwargs": {"a": [18446744073709551616]})").error,
             ContainsSubstring("whose digits are lost here"));
}

TEST_CASE("what is wrong with a JSONL row", "[input]") {
  CHECK(fault_of(R"({"prompt": "a")") ==
        "not JSON at column 15: syntax error while parsing object - unexpected end of input; expected '}'");
  CHECK(fault_of("{\"prompt\": \"ab\xff\"}") == "byte 14 of the line is no valid UTF-8");
  CHECK_THAT(fault_of(R"({"prompt": "\ud800"})"), ContainsSubstring("surrogate"));
  CHECK(fault_of("[1]") == "a line must be a JSON object, not [1]");
  CHECK(fault_of(R"({"prompt": "a", "prompt": "b"})") == "the line has \"prompt\" twice");
  CHECK(fault_of(std::string(200, '[')) == "the line is nested deeper than 100 levels");
  CHECK(fault_of(R"({"promt": "a"})") ==
        "there is no field \"promt\"; did you mean \"prompt\"?; a row has exactly one of prompt, "
        "prompt_token_ids "
        "and messages");
  CHECK(fault_of(R"({"prompt": "a", "max_token": 4})") ==
        "there is no field \"max_token\"; did you mean \"max_tokens\"?");
  CHECK(fault_of(R"({"prompt": "a", "prompt_token_ids": [1]})") ==
        "a row has exactly one of prompt, prompt_token_ids and messages");
  CHECK(fault_of(R"({"prompt": 3})") == "prompt must be a text, not 3");
  CHECK(fault_of(R"({"prompt": ""})") == "the prompt is empty");
  CHECK(fault_of(R"({"prompt_token_ids": []})") == "the prompt has no tokens");
  CHECK(fault_of(R"({"prompt_token_ids": [1, 4096]})") ==
        "prompt token 1 is 4096, outside of the model's vocabulary of 4096");
  CHECK(fault_of(R"({"prompt_token_ids": [-1]})") ==
        "prompt token 0 is -1, outside of the model's vocabulary of 4096");
  CHECK(fault_of(R"({"prompt_token_ids": [1.5]})") ==
        "prompt_token_ids must be a list of token ids, not [1.5]");
  CHECK(fault_of(R"({"prompt_token_ids": [1, -2, "b", [3, 4], 5], "id": 9223372036854775808})") ==
        "prompt_token_ids must be a list of token ids, not [1,-2,\"b\",[3,4],5]");
  CHECK(fault_of(R"({"prompt_token_ids": [1, 18446744073709551615]})") ==
        "prompt_token_ids must be a list of token ids, not [1,18446744073709551615]");
  CHECK(fault_of(R"({"prompt_token_ids": [1, 2, null]})") ==
        "prompt_token_ids must be a list of token ids, not [1,2,null]");
  CHECK(fault_of(R"({"prompt_token_ids": [[1, 2]]})") ==
        "prompt_token_ids must be a list of token ids, not [[1,2]]");
  CHECK(fault_of(R"({"prompt_token_ids": [1], "prompt_token_ids": [2]})") ==
        "the line has \"prompt_token_ids\" twice");
  CHECK(fault_of(R"({"messages": []})") == "messages must be a list of objects with a role, not []");
  CHECK(fault_of(R"({"prompt": "a", "tools": []})") == "tools belongs beside messages");
  CHECK_THAT(fault_of(R"({"prompt": "a", "id": "x\u0000y"})"), ContainsSubstring("it has a NUL in it"));
  CHECK(fault_of(R"({"prompt": "a", "top_p": 0, "temperature": "hot"})") ==
        "top_p must be a number above 0 and at most 1, not 0; temperature must be a number from 0 to 100, "
        "not \"hot\"");
  CHECK(fault_of(R"({"prompt": "a", "max_tokens": 2, "min_tokens": 3})") ==
        "min_tokens (3) is more than max_tokens (2)");
  CHECK(fault_of(R"({"prompt": "a", "stop_token_ids": [5000]})") ==
        "stop token id 5000 is outside of the model's vocabulary of 4096");
  CHECK(fault_of(R"({"prompt": "a", "logit_bias": {"5000": 1}})") ==
        "logit_bias: token id 5000 is outside of the model's vocabulary of 4096");
  CHECK(fault_of(R"({"prompt": "a", "allowed_token_ids": [1, 5000]})") ==
        "allowed token id 5000 is outside of the model's vocabulary of 4096");
  CHECK(fault_of(R"({"prompt": "a", "bad_words": "no"})") ==
        "bad_words must be a list of texts that are not empty, not \"no\"");
  const auto stops = [](size_t count, size_t bytes) {
    const std::string one = '"' + std::string(bytes, 'x') + '"';
    std::string list = one;
    for (size_t i = 1; i < count; ++i) list += ", " + one;
    return R"({"prompt": "a", "stop": [)" + list + "]}";
  };
  CHECK(fault_of(stops(256, 4096)).empty());
  CHECK(fault_of(stops(257, 1)) == "stop has 257 texts, and at most 256 are taken");
  CHECK(fault_of(stops(1, 4097)) == "stop has a text of 4097 bytes, and at most 4096 are taken");
  std::string ids = "1";
  for (int i = 0; i < 4096; ++i) ids += ",1";
  CHECK(fault_of(R"({"prompt": "a", "stop_token_ids": [)" + ids + "]}") ==
        "stop_token_ids has 4097 ids, and at most 4096 are taken");
  CHECK(fault_of(R"({"prompt": "a", "seed": 1e99999})").starts_with("not JSON at "));
}

TEST_CASE("the check of an input tells every bad row with its line", "[input]") {
  const InputFixture input("a.jsonl",
                           "\xEF\xBB\xBF{\"id\": \"a\", \"prompt\": \"x\"}\n"
                           "\n"
                           "{\"id\": \"b\"}\n"
                           "{\"id\": \"a\", \"prompt\": \"x\"}\n"
                           "{\"id\": \"c\", \"messages\": [{\"role\": \"user\", \"content\": \"x\"}]}\n");
  const std::string faults = input.faults();
  CHECK_THAT(faults, ContainsSubstring("a.jsonl:3: a row has exactly one of"));
  CHECK_THAT(faults, ContainsSubstring("a.jsonl:4: the id \"a\" is a.jsonl:1's already"));
  CHECK_THAT(faults, ContainsSubstring("a.jsonl:5: "));
  CHECK_THAT(faults, ContainsSubstring("chat template"));
  CHECK(std::count(faults.begin(), faults.end(), '\n') == 2);
}

TEST_CASE("a fault that many rows have is said once, with the first places; faults of a kind are counted",
          "[input]") {
  std::string lines;
  for (int i = 0; i < 60; ++i) lines += "{}\n";
  for (int i = 0; i < 5; ++i) lines += "{\"prompt\": \"a\", \"top_k\": -" + std::to_string(i + 2) + "}\n";
  CHECK(InputFixture("a.jsonl", lines).faults() ==
        "a.jsonl:1: a row has exactly one of prompt, prompt_token_ids and messages\n"
        "… and 59 more like this: a.jsonl:2, a.jsonl:3, …\n"
        "a.jsonl:61: top_k must be an integer of at least -1, not -2\n"
        "a.jsonl:62: top_k must be an integer of at least -1, not -3\n"
        "a.jsonl:63: top_k must be an integer of at least -1, not -4\n"
        "… and 2 more like this");
}

TEST_CASE("ids come back as they were: integers of the whole range, texts, and the two apart", "[input]") {
  const InputFixture input("a.jsonl",
                           "{\"prompt\": \"a\", \"id\": 18446744073709551615}\n"
                           "{\"prompt\": \"a\", \"id\": 9223372036854775808}\n"
                           "{\"prompt\": \"a\", \"id\": -9223372036854775808}\n"
                           "{\"prompt\": \"a\", \"id\": 1}\n"
                           "{\"prompt\": \"a\", \"id\": \"1\"}\n"
                           "{\"prompt\": \"a\", \"id\": null}\n");
  CHECK(input.faults().empty());
  const std::vector<PromptRecord> rows = input.rows();
  REQUIRE(rows.size() == 6);
  CHECK(rows[0].id == "18446744073709551615");
  CHECK(rows[1].id == "9223372036854775808");
  CHECK(rows[2].id == "-9223372036854775808");
  for (int i = 0; i < 4; ++i) CHECK(rows[i].id_kind == IdKind::integer);
  CHECK(rows[4].id == "1");
  CHECK(rows[4].id_kind == IdKind::text);
  CHECK(rows[5].id.empty());
  CHECK(
      InputFixture("a.jsonl", "{\"prompt\": \"a\", \"id\": 7}\n{\"prompt\": \"a\", \"id\": 7}\n").faults() ==
      "a.jsonl:2: the id 7 is a.jsonl:1's already");
  for (const char* number : {"1e3", "1.0", "18446744073709551616", "-9223372036854775809", "true", "\"\""}) {
    CAPTURE(number);
    CHECK_THAT(
        fault_of(std::string("{\"prompt\": \"a\", \"id\": ") + number + "}"),
        ContainsSubstring("id must be a text that is not empty or an integer from -9223372036854775808 to "
                          "18446744073709551615 without point or exponent, not "));
  }
}

TEST_CASE("a field of a row that is null is not given", "[input]") {
  InputFixture input(
      "a.jsonl",
      "{\"prompt\": \"a\", \"messages\": null, \"temperature\": null, \"logprobs\": null, \"x\": null,"
      " \"stop\": null, \"tools\": null}\n");
  input.job.sampling = {.draw = {.temperature = 0.5f, .logprobs = 2}, .stop = {"b"}};
  const PromptRecord row = input.row();
  CHECK(row.error.empty());
  CHECK(row.prompt == "a");
  CHECK(row.sampling == input.job.sampling);
}

TEST_CASE("lines beyond the limits of JSON are refused at once, and keep their id", "[input]") {
  std::string keys = "{\"id\": 5, \"prompt\": \"a\"";
  for (int i = 0; i < 20000; ++i) keys += ", \"k" + std::to_string(i) + "\": 1";
  const PromptRecord many_keys = InputFixture("a.jsonl", keys + "}\n").row();
  CHECK(many_keys.error == "the line has an object of more than 1024 keys");
  CHECK(many_keys.id == "5");
  const PromptRecord deep = InputFixture("a.jsonl", "{\"x\": " + std::string(200000, '[') +
                                                        std::string(200000, ']') + ", \"id\": \"b\"}\n")
                                .row();
  CHECK(deep.error == "the line is nested deeper than 100 levels");
  CHECK(deep.id == "b");
  std::string lists = "{\"x\": [[]";
  for (int i = 0; i < (1 << 20); ++i) lists += ",[]";
  CHECK(InputFixture("a.jsonl", lists + "]}\n").row().error ==
        "the line has more than 1048576 objects and lists");
  std::string values = "{\"prompt_token_ids\": [1";
  for (size_t i = 0; i < JsonLineLimits::kMostValues; ++i) values += ",1";
  const PromptRecord many_values = InputFixture("a.jsonl", values + "], \"id\": \"c\"}\n").row();
  CHECK(many_values.error == "the line has more than 16777216 values");
  CHECK(many_values.id == "c");
  std::string allowed = "{\"messages\": [{\"role\": \"user\", \"content\": \"a\"";
  for (int i = 0; i < 1000; ++i) allowed += ", \"k" + std::to_string(i) + "\": 1";
  CHECK(InputFixture("a.jsonl", allowed + "}]}\n").row().error.empty());
  CHECK(fault_of(R"({"messages": [{"role": "user", "content": "a", "content": "b"}]})") ==
        "the line has \"content\" twice");
}

TEST_CASE("with on_error: row bad rows come as error rows, in their places", "[input]") {
  InputFixture input("a.jsonl",
                     "{\"id\": \"a\", \"prompt\": \"x\"}\n"
                     "nonsense\n"
                     "{\"id\": \"a\", \"prompt\": \"y\"}\n"
                     "{\"id\": \"b\", \"prompt\": \"z\"}\n");
  CHECK_THROWS_AS(input.check(), BadInput);
  input.job.input.on_error = Job::Input::OnError::row;
  const InputSummary summary = input.check();
  CHECK(summary.num_rows == 4);
  REQUIRE(summary.warnings.size() == 1);
  CHECK_THAT(summary.warnings[0], ContainsSubstring("2 of 4 rows are bad"));
  CHECK_THAT(summary.warnings[0], ContainsSubstring("a.jsonl:2: not JSON"));

  const auto source = open_input(input.job, InputFixture::kVocabulary, summary);
  CHECK(source->num_rows() == 4);
  std::vector<PromptRecord> rows(4);
  for (PromptRecord& row : rows) REQUIRE(source->next(row));
  PromptRecord end;
  CHECK(!source->next(end));
  CHECK(rows[0].error.empty());
  CHECK_THAT(rows[1].error, ContainsSubstring("a.jsonl:2: not JSON at column 2"));
  CHECK_THAT(rows[2].error, ContainsSubstring("a.jsonl:3: the id \"a\" is an earlier row's already"));
  CHECK(rows[3].error.empty());
  CHECK(rows[3].row == 3);
}

TEST_CASE("sources seek, stop at the limit, and notice an input that changed", "[input]") {
  std::string lines;
  for (int i = 0; i < 10; ++i) lines += "\n{\"prompt\": \"" + std::to_string(i) + "\"}\n";
  InputFixture input("a.jsonl", lines);
  input.job.input.limit = 8;
  InputSummary summary = input.check();
  CHECK(summary.num_rows == 8);
  const auto source = open_input(input.job, InputFixture::kVocabulary, summary);
  PromptRecord record;
  for (const uint64_t row : {5, 2, 7}) {
    source->seek(row);
    REQUIRE(source->next(record));
    CHECK(record.row == row);
    CHECK(record.prompt == std::to_string(row));
  }
  CHECK(!source->next(record));

  summary.num_rows = 11;
  const auto shrunk = open_input(input.job, InputFixture::kVocabulary, summary);
  shrunk->seek(10);
  CHECK_THROWS_WITH(shrunk->next(record), ContainsSubstring("must not change during the job"));
}

TEST_CASE("inputs that cannot be read or hold nothing are refused", "[input]") {
  CHECK(InputFixture("none.jsonl", "").faults() == "none.jsonl cannot be read: No such file or directory");
  CHECK(InputFixture("a.jsonl", "\n \n\r\n").faults() == "a.jsonl: it holds no prompts");
  InputFixture directory("a.jsonl", "");
  std::filesystem::create_directory(directory.job.input.path);
  CHECK(directory.faults() == "a.jsonl cannot be read: it is no regular file");
  InputFixture text("a.jsonl", "{\"prompt\": \"x\"}\n");
  text.job.model.path = text.dir.path();
  CHECK_THAT(text.faults(), ContainsSubstring("which is not there; give prompt_token_ids"));
}

TEST_CASE("lines beyond the limit are refused without being held", "[input]") {
  std::string lines = "{\"prompt\": \"";
  lines.append(LineReader::kMostBytes + 10, 'a');
  lines += "\"}\n{\"prompt\": \"b\"}\n";
  const std::vector<PromptRecord> rows = InputFixture("a.jsonl", lines).rows();
  REQUIRE(rows.size() == 2);
  CHECK(rows[0].error == "the line is longer than 64 MiB");
  CHECK(rows[1].prompt == "b");
}

TEST_CASE("a set of ids remembers where each was first", "[input]") {
  IdSet ids;
  for (uint64_t i = 0; i < 5000; ++i) REQUIRE(!ids.add("id-" + std::to_string(i), IdKind::text, i));
  for (uint64_t i = 0; i < 5000; ++i) REQUIRE(ids.add("id-" + std::to_string(i), IdKind::text, 99) == i);
  CHECK(!ids.add("7", IdKind::text, 1));
  CHECK(!ids.add("7", IdKind::integer, 2));
}
