#include <sstream>

#include "moerun/error.h"
#include "tests/unit/text_fixture.h"
#include "text/detokenizer.h"
#include "text/tokenizer.h"

using namespace moerun;
using nlohmann::json;

namespace {

std::string fed_one_by_one(const Tokenizer& tokenizer, const std::vector<int32_t>& ids,
                           bool skip_special_tokens) {
  Detokenizer detokenizer(tokenizer, skip_special_tokens);
  std::string text;
  for (int32_t id : ids) text += detokenizer.feed(id);
  return text + detokenizer.finish();
}

/// What Hugging Face answered to each row (text → ids, ids → text), as far as the row says.
void check_rows(Tokenizer& tokenizer, const std::vector<json>& rows) {
  for (const json& row : rows) {
    INFO(row.dump());
    const auto ids = row["ids"].get<std::vector<int32_t>>();
    if (row.contains("text")) CHECK(tokenizer.encode(row["text"].get<std::string>()) == ids);
    if (row.contains("decoded")) {
      CHECK(tokenizer.decode(ids, false) == row["decoded"]);
      CHECK(fed_one_by_one(tokenizer, ids, false) == row["decoded"]);
    }
    if (row.contains("decoded_without_special")) {
      CHECK(tokenizer.decode(ids, true) == row["decoded_without_special"]);
      CHECK(fed_one_by_one(tokenizer, ids, true) == row["decoded_without_special"]);
    }
  }
}

}  // namespace

TEST_CASE("The tiny model's tokenizer equals Hugging Face's on hard cases", "[text]") {
  Tokenizer tokenizer = Tokenizer::load(kTinyModel);
  const auto rows = read_jsonl("tests/golden/text/tokens.jsonl");
  REQUIRE(rows.size() > 200);
  check_rows(tokenizer, rows);
}

TEST_CASE("Qwen3's tokenizer equals Hugging Face's", "[text]") {
  const auto folder = shared_folder("golden/qwen3-tokenizer");
  if (!folder) return;
  Tokenizer tokenizer = Tokenizer::load(*folder);
  CHECK(tokenizer.vocab_size() == 151669);
  CHECK(tokenizer.token_id("<|im_end|>") == 151645);
  CHECK(tokenizer.checksum() == "aeb13307a71acd8fe81861d94ad54ab689df773318809eed3cbe794b4492dae4");
  const auto rows = read_jsonl(*folder + "/tokens.jsonl");
  REQUIRE(rows.size() == 120);
  check_rows(tokenizer, rows);
}

TEST_CASE("Added tokens honour lstrip, rstrip, single_word, normalized and special", "[text]") {
  auto rows = read_jsonl("tests/golden/text/added.jsonl");
  json file = json::parse(read_text_file(kTinyModel + "/tokenizer.json"));
  for (const json& token : rows[0]["added_tokens"]) file["added_tokens"].push_back(token);
  Tokenizer tokenizer = Tokenizer::from_json(file.dump(), "test");
  rows.erase(rows.begin());
  REQUIRE(rows.size() > 100);
  check_rows(tokenizer, rows);
}

TEST_CASE("Tokens are found by content and known by id", "[text]") {
  const Tokenizer tokenizer = Tokenizer::load(kTinyModel);
  CHECK(tokenizer.vocab_size() == 4096);
  CHECK(tokenizer.token_id("<|endoftext|>") == 4093);
  CHECK(tokenizer.token_id("Ġt").has_value());
  CHECK_FALSE(tokenizer.token_id("<|no such token|>").has_value());
  CHECK(tokenizer.is_special(4093));
  CHECK_FALSE(tokenizer.is_special(0));
  CHECK_FALSE(tokenizer.is_special(-1));
  CHECK(tokenizer.token_bytes(*tokenizer.token_id("Ġt")) == " t");
  CHECK(tokenizer.token_bytes(4096).empty());
  CHECK(tokenizer.token_bytes(-1).empty());
}

TEST_CASE("A long run of one thing is not quadratic and loses nothing", "[text]") {
  Tokenizer tokenizer = Tokenizer::load(kTinyModel);
  std::string letters;
  for (uint32_t i = 0, x = 1; i < 1'000'000; ++i)
    letters += static_cast<char>('a' + (x = x * 1664525 + 1013904223) % 26);
  const auto repeat = [](std::string_view unit, int n) {
    std::string text;
    while (n-- > 0) text += unit;
    return text;
  };
  for (const std::string& text :
       {repeat("x", 1'000'000), repeat(" ", 1'000'000), repeat("\n", 1'000'000), letters,
        repeat(" ", 1'000'000) + "x", repeat("中", 300'000), repeat("=-", 500'000)}) {
    const auto ids = tokenizer.encode(text);
    CHECK(ids.size() < text.size() + 1);
    CHECK((tokenizer.decode(ids, false) == text));
  }
  // Marks in the wrong order: normalization changes them, so only their number is known.
  const auto ids = tokenizer.encode(repeat("\u0345\u0301\u0327", 100'000));
  CHECK(tokenizer.decode(ids, false).size() == 600'000);
}

TEST_CASE("The cache of pieces changes no answer, however full", "[text]") {
  Tokenizer cached = Tokenizer::load(kTinyModel);
  const std::string probe = "The whale, 1851: the white whale.";
  const auto expected = cached.encode(probe);
  for (int i = 0; i < 200'000; ++i)
    cached.encode("word" + std::string(1, static_cast<char>('a' + i % 26)) + std::to_string(i) +
                  std::string(static_cast<size_t>(i % 7), '!') + "x" + std::to_string(i * 7));
  CHECK(cached.encode(probe) == expected);
}

TEST_CASE("Text that is not UTF-8 is refused with the place", "[text]") {
  Tokenizer tokenizer = Tokenizer::load(kTinyModel);
  for (const char* text : {"ab\xFF", "ab\xE2\x82", "ab\xC0\x80", "ab\xED\xA0\x80", "ab\xF4\x90\x80\x80"})
    CHECK(contains(message_of<BadInput>([&] { tokenizer.encode(text); }), "not valid UTF-8 at byte 2"));
}

TEST_CASE("What a detokenizer has given never changes", "[text]") {
  const Tokenizer tokenizer = Tokenizer::load(kTinyModel);
  const auto byte_token = [&](const char* spelling) { return *tokenizer.token_id(spelling); };
  Detokenizer detokenizer(tokenizer, true);
  // U+20AC is E2 82 AC, spelled "âĤ¬".
  CHECK(detokenizer.feed(byte_token("â")).empty());
  CHECK(detokenizer.feed(byte_token("Ĥ")).empty());
  CHECK(detokenizer.feed(4093).empty());
  CHECK(detokenizer.feed(byte_token("¬")) == "€");
  CHECK(detokenizer.feed(byte_token("â")).empty());
  CHECK(detokenizer.feed(byte_token("a")) == "\uFFFDa");
  CHECK(detokenizer.feed(byte_token("â")).empty());
  CHECK(detokenizer.finish() == "\uFFFD");
  CHECK(detokenizer.finish().empty());
}
