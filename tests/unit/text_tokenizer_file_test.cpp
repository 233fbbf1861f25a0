#include <functional>

#include "moerun/error.h"
#include "tests/unit/temporary_directory.h"
#include "tests/unit/text_fixture.h"
#include "text/byte_level.h"
#include "text/pretokenizer.h"
#include "text/split_regex.h"
#include "text/tokenizer.h"

using namespace moerun;
using nlohmann::json;

namespace {

/// The 256 bytes, "ab", "abc", "bc" and one added token.
json small_tokenizer() {
  json vocab = json::object();
  for (int byte = 0; byte < 256; ++byte)
    vocab[byte_level_spelling(std::string(1, static_cast<char>(byte)))] = byte;
  vocab["bc"] = 256;
  vocab["ab"] = 257;
  vocab["abc"] = 258;
  return {{"version", "1.0"},
          {"truncation", nullptr},
          {"padding", nullptr},
          {"added_tokens", {{{"id", 259}, {"content", "<end>"}, {"special", true}}}},
          {"normalizer", nullptr},
          {"pre_tokenizer", {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", true}}},
          {"post_processor", nullptr},
          {"decoder", {{"type", "ByteLevel"}}},
          {"model", {{"type", "BPE"}, {"vocab", vocab}, {"merges", {"b c", "a b", "a bc"}}}}};
}

std::vector<int32_t> ids_of(const json& file, std::string_view text) {
  return Tokenizer::from_json(file.dump(), "test").encode(text);
}

using Ids = std::vector<int32_t>;

json split_by(const std::string& regex) {
  return {{"type", "Split"}, {"pattern", {{"Regex", regex}}}, {"behavior", "Isolated"}, {"invert", false}};
}

std::vector<std::string> pieces_by(const json& pre_tokenizer, std::string_view text) {
  const std::string file = "test";
  Pretokenizer pretokenizer(Component(pre_tokenizer, "pre_tokenizer", file));
  PieceList list;
  pretokenizer.split(text, true, list);
  std::vector<std::string> pieces;
  for (const auto& piece : list.pieces) pieces.emplace_back(piece.text);
  return pieces;
}

}  // namespace

TEST_CASE("Merges go by rank, in either spelling", "[text]") {
  json file = small_tokenizer();
  CHECK(ids_of(file, "abc") == Ids{258});
  CHECK(ids_of(file, "ab") == Ids{257});
  CHECK(ids_of(file, "abbc<end>c") == Ids{257, 256, 259, 'c'});
  file["model"]["merges"] = json::parse(R"([["b", "c"], ["a", "b"], ["a", "bc"]])");
  CHECK(ids_of(file, "abc") == Ids{258});
  file["model"]["merges"] = {"#version: 0.2", "a b", "b c"};  // "ab" is first now, and nothing makes "abc"
  CHECK(ids_of(file, "abc") == Ids{257, 'c'});
  file["model"]["ignore_merges"] = true;
  CHECK(ids_of(file, "abc") == Ids{258});
  CHECK(ids_of(file, "abcc") == Ids{257, 'c', 'c'});
}

TEST_CASE("Long pieces merge like short ones", "[text]") {
  json file = small_tokenizer();
  std::string text;
  Ids expected;
  for (int i = 0; i < 500; ++i) {
    text += "abcab";
    expected.insert(expected.end(), {258, 257});
  }
  CHECK(ids_of(file, text) == expected);
}

TEST_CASE("Split patterns apply one after the other, gaps are pieces", "[text]") {
  const json sequence{{"type", "Sequence"},
                      {"pretokenizers", json::array({split_by("\\p{N}{1,3}"), split_by("[^\\s\\p{N}]+")})}};
  CHECK(pieces_by(sequence, "ab 12345c") == std::vector<std::string>{"ab", " ", "123", "45", "c"});
}

TEST_CASE(
    "What a tokenizer.json says and this program does not know is "
    "refused by name",
    "[text]") {
  struct Case {
    const char* what;
    std::function<void(json&)> spoil;
    const char* message;
  };
  const std::vector<Case> cases = {
      {"model", [](json& f) { f["model"]["type"] = "WordPiece"; }, "model of type WordPiece"},
      {"no model", [](json& f) { f.erase("model"); }, "a model without a type"},
      {"model key", [](json& f) { f["model"]["new_option"] = 1; }, "'new_option' in model"},
      {"top key", [](json& f) { f["extra"] = 1; }, "'extra' in the file"},
      {"version", [](json& f) { f["version"] = "2.0"; }, "version \"2.0\""},
      {"truncation",
       [](json& f) {
         f["truncation"] = {{"max_length", 5}};
       },
       "sets truncation"},
      {"padding",
       [](json& f) {
         f["padding"] = {{"strategy", "BatchLongest"}};
       },
       "sets padding"},
      {"dropout", [](json& f) { f["model"]["dropout"] = 0.1; }, "model.dropout"},
      {"prefix", [](json& f) { f["model"]["continuing_subword_prefix"] = "##"; },
       "continuing_subword_prefix"},
      {"normalizer",
       [](json& f) {
         f["normalizer"] = {{"type", "NFKC"}};
       },
       "normalizer is of type NFKC; this program knows"},
      {"normalizers",
       [](json& f) {
         f["normalizer"] = json::parse(R"({"type": "Sequence", "normalizers": [{"type": "Nmt"}]})");
       },
       "normalizer[0] is of type Nmt"},
      {"normalizers without end",
       [](json& f) {
         const json nfc = {{"type", "NFC"}};
         f["normalizer"] = {{"type", "Sequence"}, {"normalizers", json::array()}};
         for (int i = 0; i < 65; ++i) f["normalizer"]["normalizers"].push_back(nfc);
       },
       "normalizer has 65 normalizers, and at most 64 are read"},
      {"sequences in sequences",
       [](json& f) {
         json inner = {{"type", "NFC"}};
         for (int i = 0; i < 3; ++i) inner = {{"type", "Sequence"}, {"normalizers", json::array({inner})}};
         f["normalizer"] = inner;
       },
       "normalizer[0][0] is the 3rd Sequence in another"},
      {"pre",
       [](json& f) {
         f["pre_tokenizer"] = {{"type", "Whitespace"}};
       },
       "pre_tokenizer is of type Whitespace"},
      {"pre key", [](json& f) { f["pre_tokenizer"]["new"] = 1; }, "pre_tokenizer has the key 'new'"},
      {"pre behind",
       [](json& f) {
         f["pre_tokenizer"] = json::parse(R"({"type": "Sequence", "pretokenizers": [
           {"type": "ByteLevel"}, {"type": "Digits"}]})");
       },
       "pre_tokenizer[1] stands behind ByteLevel"},
      {"no list",
       [](json& f) {
         f["pre_tokenizer"] = {{"type", "Sequence"}};
       },
       "is a Sequence without pretokenizers"},
      {"behavior",
       [](json& f) {
         f["pre_tokenizer"] = split_by("a");
         f["pre_tokenizer"]["behavior"] = "Shredded";
       },
       "the behavior 'Shredded'"},
      {"scheme",
       [](json& f) {
         f["pre_tokenizer"] =
             json::parse(R"({"type": "Metaspace", "replacement": "_", "prepend_scheme": "last"})");
       },
       "the prepend_scheme 'last'"},
      {"post",
       [](json& f) {
         f["post_processor"] = {{"type", "BertProcessing"}};
       },
       "post_processor is of type BertProcessing"},
      {"template",
       [](json& f) {
         f["post_processor"] = {{"type", "TemplateProcessing"}};
       },
       "no list 'single'"},
      {"template id",
       [](json& f) {
         f["post_processor"] = json::parse(R"({"type": "TemplateProcessing", "single": [
           {"SpecialToken": {"id": "x"}}, {"Sequence": {"id": "A"}}], "pair": [], "special_tokens": {"x": {"id": "x", "ids": [9999]}}})");
       },
       "adds the token 9999, which there is not"},
      {"decoder",
       [](json& f) {
         f["decoder"] = {{"type", "WordPiece"}};
       },
       "decoder is of type WordPiece"},
      {"no decoder", [](json& f) { f["decoder"] = nullptr; }, "decoder has no type"},
      {"decoder order",
       [](json& f) {
         f["decoder"] =
             json::parse(R"({"type": "Sequence", "decoders": [{"type": "Fuse"}, {"type": "ByteFallback"}]})");
       },
       "decoder[1] stands behind"},
      {"unknown",
       [](json& f) {
         f["pre_tokenizer"] = nullptr;
         f["model"]["unk_token"] = "<u>";
       },
       "the unk_token '<u>'"},
      {"far id", [](json& f) { f["model"]["vocab"]["bc"] = 9000000; }, "has the id 9000000"},
      {"long added", [](json& f) { f["added_tokens"][0]["content"] = std::string(2000, 'x'); },
       "an added token of 2000 bytes"},
      {"pattern",
       [](json& f) {
         f["pre_tokenizer"] = json::parse(
             R"({"type": "Sequence", "pretokenizers": [{"type": "Split", "pattern":
           {"Regex": "\\h+"}, "behavior": "Isolated", "invert": false}, {"type": "ByteLevel", "add_prefix_space": false}]})");
       },
       "the escape \\h"},
      {"byte", [](json& f) { f["model"]["vocab"].erase("Ġ"); }, "no token for the byte 0x20"},
      {"merge", [](json& f) { f["model"]["merges"].push_back("a q"); },
       "'aq', which is not in its vocabulary"},
      {"merge words", [](json& f) { f["model"]["merges"].push_back("a b c"); }, "'a b c', not two tokens"},
      {"merge list", [](json& f) { f["model"]["merges"].push_back({"a"}); }, "a merge of 1 tokens"},
      {"merge type", [](json& f) { f["model"]["merges"].push_back(7); }, "the merge 7"},
      {"same id", [](json& f) { f["model"]["vocab"]["bc"] = 257; }, "the id 257 to two tokens"},
      {"wild id", [](json& f) { f["model"]["vocab"]["bc"] = 4000000000; }, "the id 4000000000"},
      {"negative id", [](json& f) { f["model"]["vocab"]["bc"] = -1; }, "the id -1"},
      {"added id", [](json& f) { f["added_tokens"][0]["id"] = 300; },
       "where Hugging Face's library gives 259"},
      {"added flag", [](json& f) { f["added_tokens"][0]["lstrip"] = "yes"; }, "lstrip"},
      {"added key", [](json& f) { f["added_tokens"][0]["regex"] = true; }, "'regex' in added_tokens"},
  };
  CHECK(ids_of(small_tokenizer(), "abc") == Ids{258});
  for (const Case& c : cases) {
    json file = small_tokenizer();
    c.spoil(file);
    INFO(c.what);
    const std::string message = message_of<Error>([&] { Tokenizer::from_json(file.dump(), "test.json"); });
    INFO(message);
    CHECK(contains(message, c.message));
  }
  const std::string deep = std::string(200'000, '[') + std::string(200'000, ']');
  for (const std::string& file :
       {deep, "{\"model\": " + deep + "}", "{\"normalizer\": {\"a\": " + deep + "}}"})
    CHECK(contains(message_of<BadInput>([&] { Tokenizer::from_json(file, "test.json"); }),
                   "is nested more than 64 deep"));
  CHECK_THROWS_AS(Tokenizer::from_json("{\"model\": ", "test.json"), Error);
  CHECK_THROWS_AS(Tokenizer::from_json("[]", "test.json"), Error);
  CHECK_THROWS_AS(Tokenizer::load("no/such/folder"), BadInput);
}

TEST_CASE("Split patterns whose meaning is not known are refused", "[text]") {
  for (const char* regex :
       {"\\w+",    "\\h",         "\\b",      "\\1",          "[a[:alpha:]]",  "[a",      "[]",
        "(?<n>a)", "(?i)a",       "(*FAIL)a", "a{2}+",        "a{2}?",         "a{x}",    "a++*",
        "a*",      "(a",          "a)",       "\\pL",         "\\p{Cyrillic}", "\\p{}",   "a\\",
        "\\xff",   "\\x{110000}", "[b-a]",    "(?i:\\p{Lu})", "(?i:\u00e9)",   "(?i:ss)", "(?i:fi)",
        "\xff"}) {
    INFO(regex);
    CHECK_THROWS_AS(SplitRegex(regex), Error);
  }
  const auto nested = [](const std::string& open, const std::string& close, int depth) {
    std::string text = "a";
    for (int i = 0; i < depth; ++i) text = open + text + close;
    return text;
  };
  CHECK_THROWS_AS(SplitRegex(nested("(", ")", 100'000)), Error);
  CHECK_THROWS_AS(SplitRegex(nested("[", "]", 100'000)), Error);
  CHECK_NOTHROW(SplitRegex(nested("(", ")", 50)));
}

TEST_CASE("Split patterns mean what they mean in Oniguruma", "[text]") {
  const auto pieces_of = [](const char* regex, std::string_view text) {
    return pieces_by(split_by(regex), text);
  };
  using Pieces = std::vector<std::string>;
  CHECK(pieces_of("[a-c&&[^b]]+", "abcab") == Pieces{"a", "b", "ca", "b"});
  CHECK(pieces_of("[\\p{Lu}\\p{Lo}&&[^\\p{Han}]]", "A中ア") == Pieces{"A", "中", "ア"});
  CHECK(pieces_of("\\p{^L}+", "ab12") == Pieces{"ab", "12"});
  CHECK(pieces_of(".+", "a\nb") == Pieces{"a", "\n", "b"});
  CHECK(pieces_of("\\s+$", " a \n b ") == Pieces{" a", " ", "\n b", " "});
  CHECK(pieces_of("^a", "aa\na") == Pieces{"a", "a\n", "a"});
  CHECK(pieces_of("(?i:'s|'k)", "'S'\u017f'\u212ax") == Pieces{"'S", "'\u017f", "'\u212a", "x"});
  CHECK(pieces_of("\\x{4E2D}|\\u6587", "中文x") == Pieces{"中", "文", "x"});
  CHECK(pieces_of("a{,2}b", "aaab") == Pieces{"a", "aab"});
  CHECK(pieces_of("[^\\x00-\\x7f]", "a\U000323AFb") == Pieces{"a", "\U000323AF", "b"});
}
