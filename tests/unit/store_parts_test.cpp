// The parts of the store: packed answers, segments, the merge, lines.
#include <bit>
#include <cmath>
#include <cstring>
#include <nlohmann/json.hpp>

#include "io/fingerprint.h"
#include "io/ledger.h"
#include "io/merge.h"
#include "io/openai_line.h"
#include "io/result_jsonl.h"
#include "io/segment_scan.h"
#include "store_fixture.h"
#include "tests/catch.h"

using namespace moerun;

TEST_CASE("an answer comes back from its packed form bit by bit", "[store]") {
  for (uint64_t row = 0; row < 40; ++row) {
    RowResult want = row % 2 == 0 ? several_answers_to(row) : routed_answers_to(row);
    want.endpoint = static_cast<Endpoint>(row % 3);
    want.text.push_back('\0');  // any byte is fine
    std::string packed = "before";
    pack_row(want, packed);
    REQUIRE(same_answer(unpack_row(packed.substr(6)), want));
    // What a row without parts packs is whole by itself, and so is what one with one answer does.
    std::string without_parts = "before", without = "before";
    RowResult one = want;
    one.echo.reset(), one.chat = {};
    for (Answer& answer : one.more_answers) answer.chat = {};
    pack_row(one, without_parts);
    one.more_answers.clear(), one.prompt_is_greedy.clear(), one.prompt_truncated = -1;
    one.prompt_routed.clear(), one.routed.clear();
    one.num_prompt_top_logprobs = 0, one.prompt_top_logprobs.clear(), one.scored_tokens.clear();
    pack_row(one, without);
    for (size_t bytes = 0; bytes + 6 < packed.size(); bytes += bytes % 2 + 1)
      if (bytes + 6 != without.size() && bytes + 6 != without_parts.size())
        REQUIRE_THROWS_AS(unpack_row(packed.substr(6, bytes)), Error);
    REQUIRE_THROWS_AS(unpack_row(packed.substr(6) + "x"), Error);
  }
}

TEST_CASE("segments that interleave merge into row order", "[store]") {
  const TemporaryDirectory directory;
  const Directory files(directory.path(), Directory::Links::refused);
  const std::string run_id(32, 'a');
  constexpr uint64_t kSegments = 5, kRows = 5 * 700;  // several windows a segment
  std::vector<SegmentRecord> records;
  for (uint64_t s = 0; s < kSegments; ++s) {
    SegmentBuilder builder;
    // Segment 0 holds the first and the last row; the others share what is between in turn, in falling order.
    for (uint64_t row = kRows; row-- > 0;)
      if ((row == 0 || row == kRows - 1) ? s == 0 : row % kSegments == s) builder.append(answer_to(row));
    records.push_back(builder.write(files, segment_name(s), run_id));
    uint64_t sound = 0;
    const SegmentScan scan = scan_segment(files, records.back().name, &records.back(), run_id,
                                          [&](const SegmentEntry&, std::string_view) { ++sound; });
    CHECK(scan.damage.empty());
    CHECK(sound == records.back().rows);
    CHECK(ledger_line(scan.record) == ledger_line(records.back()));
  }
  const SegmentScan foreign = scan_segment(files, records[0].name, &records[0], std::string(32, 'b'),
                                           [](const SegmentEntry&, std::string_view) { FAIL(); });
  CHECK_THAT(foreign.damage, ContainsSubstring("is not a segment of run bbbb"));
  SegmentMerge merge(files, records, run_id);
  RowResult result;
  for (uint64_t row = 0; row < kRows; ++row) {
    REQUIRE(merge.next(result));
    REQUIRE(same_answer(result, answer_to(row)));
  }
  CHECK_FALSE(merge.next(result));
}

TEST_CASE("a float in a line gives the same float32 back", "[store]") {
  RowResult result = {.row = 3, .finish_reason = FinishReason::stop};
  uint32_t state = 1;
  for (int i = 0; i < 20000; ++i) {
    state = state * 1664525 + 1013904223;
    float value = 0;
    std::memcpy(&value, &state, sizeof value);
    if (std::isfinite(value)) result.logprobs.push_back(value);
  }
  result.logprobs.push_back(-0.0f);
  std::string line;
  append_result_line(result, line);
  const auto back = nlohmann::json::parse(line)["logprobs"];
  REQUIRE(back.size() == result.logprobs.size());
  for (size_t i = 0; i < result.logprobs.size(); ++i)
    REQUIRE(std::bit_cast<uint32_t>(back[i].get<float>()) == std::bit_cast<uint32_t>(result.logprobs[i]));
}

TEST_CASE("a line that has nothing to say about a key says null", "[store]") {
  std::string line;
  append_result_line(
      {.row = 1, .prompt_length = 2, .token_ids = {5, 6}, .finish_reason = FinishReason::length}, line);
  CHECK(
      line ==
      R"({"row": 1, "id": null, "prompt_length": 2, "token_ids": [5, 6], "text": "", "finish_reason": "length", "error": null})");
  line.clear();
  append_result_line({.row = 2, .id = "\xff", .error = "no"}, line);
  CHECK(nlohmann::json::parse(line)["id"] == "\xef\xbf\xbd");
  CHECK(nlohmann::json::parse(line)["error"] == "no");
  line.clear();
  append_result_line({.row = 2, .id = "18446744073709551615", .id_kind = IdKind::integer}, line);
  CHECK_THAT(line, ContainsSubstring(R"("id": 18446744073709551615,)"));
}

TEST_CASE("OpenAI batch lines are answered with OpenAI batch response lines", "[store]") {
  StoreJob job;
  job.openai = true;
  job.num_rows = 3;
  {
    OpenedStore opened = job.open();
    RowResult chat = answer_to(4);
    chat.row = 0;
    chat.endpoint = Endpoint::chat_completions;
    opened.store->append(std::move(chat));
    RowResult completion = answer_to(4);
    completion.row = 1;
    completion.endpoint = Endpoint::completions;
    opened.store->append(std::move(completion));
    RowResult bad = answer_to(10);
    bad.row = 2;
    bad.endpoint = Endpoint::chat_completions;
    opened.store->append(std::move(bad));
    opened.store->finish();
  }
  std::vector<nlohmann::json> lines;
  const std::string text = job.jsonl();
  for (size_t begin = 0; begin < text.size(); begin = text.find('\n', begin) + 1)
    lines.push_back(nlohmann::json::parse(text.substr(begin, text.find('\n', begin) - begin)));
  REQUIRE(lines.size() == 3);
  const RowResult want = answer_to(4);

  CHECK(lines[0]["custom_id"] == want.id);
  CHECK(lines[0]["error"].is_null());
  CHECK(lines[0]["response"]["status_code"] == 200);
  const auto& chat = lines[0]["response"]["body"];
  CHECK(chat["object"] == "chat.completion");
  CHECK(chat["model"] == "models/tiny");
  CHECK(chat["created"].get<int64_t>() > 1700000000);
  CHECK(chat["usage"] == nlohmann::json{{"prompt_tokens", 5},
                                        {"completion_tokens", 4},
                                        {"total_tokens", 9},
                                        {"completion_tokens_details", {{"reasoning_tokens", 0}}}});
  CHECK(chat["system_fingerprint"].get<std::string>().starts_with("moerun-1-"));
  const auto& choice = chat["choices"][0];
  CHECK(choice["index"] == 0);
  CHECK(choice["message"] ==
        nlohmann::json{{"role", "assistant"}, {"content", want.text}, {"refusal", nullptr}});
  CHECK(choice["finish_reason"] == "length");
  const auto& tokens = choice["logprobs"]["content"];
  REQUIRE(tokens.size() == 4);
  CHECK(tokens[1]["token"] == "token_id:41");
  CHECK(tokens[1]["logprob"].get<float>() == want.logprobs[1]);
  CHECK(tokens[1]["top_logprobs"][1]["token"] == "token_id:42");
  CHECK(tokens[1]["top_logprobs"][1]["logprob"].get<float>() == want.top_logprobs[3].second);

  const auto& completion = lines[1]["response"]["body"];
  CHECK(completion["object"] == "text_completion");
  CHECK(completion["choices"][0]["text"] == want.text);
  CHECK(completion["choices"][0]["logprobs"]["token_logprobs"].get<std::vector<float>>() == want.logprobs);
  CHECK(completion["choices"][0]["logprobs"]["tokens"][3] == "token_id:43");
  CHECK(completion["choices"][0]["logprobs"]["top_logprobs"][1]["token_id:42"].get<float>() ==
        want.top_logprobs[3].second);

  CHECK(lines[2]["response"].is_null());
  CHECK(lines[2]["error"]["message"] == answer_to(10).error);
}

TEST_CASE("several answers are a list in a line, and choices of an OpenAI response", "[store]") {
  RowResult row = answer_to(2);
  row.more_answers.push_back(
      {.token_ids = {7}, .text = "b", .logprobs = {-1}, .top_logprobs = {{7, -1}, {8, -2}}});
  row.prompt_is_greedy.assign(row.prompt_logprobs.size(), 1);
  std::string line;
  append_result_line(row, line);
  auto json = nlohmann::json::parse(line);
  CHECK_FALSE(json.contains("token_ids"));
  REQUIRE(json["answers"].size() == 2);
  CHECK(json["answers"][0]["index"] == 0);
  CHECK(json["answers"][0]["token_ids"] == row.token_ids);
  CHECK(json["answers"][1] == nlohmann::json::parse(R"({"index": 1, "token_ids": [7], "text": "b",
      "finish_reason": "length", "logprobs": [-1.0], "top_logprobs": [[[7, -1.0], [8, -2.0]]]})"));
  CHECK(json["prompt_is_greedy"] == nlohmann::json(std::vector<bool>(row.prompt_logprobs.size(), true)));
  CHECK(json["error"].is_null());

  line.clear();
  row.endpoint = Endpoint::chat_completions;
  append_openai_line({&row, 1}, {.model = "m"}, line);
  json = nlohmann::json::parse(line)["response"]["body"];
  REQUIRE(json["choices"].size() == 2);
  CHECK(json["choices"][1]["index"] == 1);
  CHECK(json["choices"][1]["message"]["content"] == "b");
  CHECK(json["choices"][1]["finish_reason"] == "length");
  CHECK(json["usage"]["completion_tokens"] == row.token_ids.size() + 1);
}

TEST_CASE("fingerprints differ by name and value, not by order", "[store]") {
  const Fingerprint before = {{"a", "1"}, {"b", ""}};
  CHECK(differences(before, {{"b", ""}, {"a", "1"}}).empty());
  CHECK(differences(before, {{"a", "2"}, {"c", "3"}}) ==
        std::vector<std::string>{"a was 1 and is now 2", "c was absent and is now 3",
                                 "b was \"\" and is now absent"});
  CHECK(fingerprint_from_json(to_json(before)) == before);
}
