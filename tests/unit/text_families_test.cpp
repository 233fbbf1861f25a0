// Tokenizers with the pipelines of other families, against what Hugging Face's
// library answered.
#include "tests/unit/text_fixture.h"
#include "text/detokenizer.h"
#include "text/tokenizer.h"

using namespace moerun;
using nlohmann::json;

namespace {

/// The text of a growing answer, which must hold what has come at every step.
std::string fed_one_by_one(const Tokenizer& tokenizer, const std::vector<int32_t>& ids, bool skip_special) {
  Detokenizer detokenizer(tokenizer, skip_special);
  std::string text;
  for (const int32_t id : ids) text += detokenizer.feed(id);
  return text + detokenizer.finish();
}

bool equals_library(Tokenizer& tokenizer, const json& row) {
  const auto ids = row["ids"].get<std::vector<int32_t>>();
  bool equal = true;
  if (row.contains("text")) {
    equal &= tokenizer.encode(row["text"].get<std::string>()) == ids;
    equal &= tokenizer.encode_prompt(row["text"].get<std::string>()) == row["prompt_ids"];
  }
  for (const auto& [key, skip] : {std::pair{"decoded", false}, {"decoded_without_special", true}})
    equal &= tokenizer.decode(ids, skip) == row[key] && fed_one_by_one(tokenizer, ids, skip) == row[key];
  return equal;
}

}  // namespace

TEST_CASE("Tokenizers of other families equal Hugging Face's", "[text]") {
  // More cases, made by tests/tools/make_tokenizer_families.py, where a folder
  // of them is given.
  const char* const more = std::getenv("MOERUN_FAMILIES");
  const std::string root = more != nullptr ? more : "tests/golden/text/families";
  size_t families = 0;
  for (const auto& folder : std::filesystem::directory_iterator(root)) {
    Tokenizer tokenizer = Tokenizer::load(folder.path());
    ++families;
    size_t differ = 0, cases = 0;
    std::ifstream lines(folder.path() / "cases.jsonl");
    for (std::string line; std::getline(lines, line);) {
      const json row = json::parse(line);
      ++cases;
      if (equals_library(tokenizer, row)) continue;
      UNSCOPED_INFO(row.dump(-1, ' ', true));
      if (row.contains("text")) UNSCOPED_INFO(json(tokenizer.encode(row["text"].get<std::string>())).dump());
      UNSCOPED_INFO(
          json(tokenizer.decode(row["ids"].get<std::vector<int32_t>>(), false)).dump(-1, ' ', true));
      if (++differ == 3) break;
    }
    INFO(folder.path().string() << " of " << cases << " cases");
    CHECK(differ == 0);
    CHECK(cases >= 30);
  }
  CHECK(families >= 15);
}

TEST_CASE("A run of fallback bytes is there for stop strings before it ends", "[text]") {
  Tokenizer tokenizer = Tokenizer::load("tests/golden/text/families/mixtral");
  const auto byte = [&](const char* spelling) { return *tokenizer.token_id(spelling); };
  Detokenizer detokenizer(tokenizer, true);
  CHECK(detokenizer.feed(byte("<0x0A>")).empty());
  CHECK(detokenizer.provisional() == "\n");
  CHECK(detokenizer.feed(byte("<0xE4>")).empty());
  CHECK(detokenizer.provisional() == "\n");  // a character that is not whole
  CHECK(detokenizer.feed(byte("<0x0A>")).empty());
  CHECK(detokenizer.provisional() == "\uFFFD\uFFFD\uFFFD");  // spoilt: a replacement character for each
  CHECK(detokenizer.finish() == "\uFFFD\uFFFD\uFFFD");
}
