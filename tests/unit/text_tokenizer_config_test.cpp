// What tokenizer_config.json says of tokens, and tokenizers that a stranger
// made.
#include "moerun/error.h"
#include "tests/unit/temporary_directory.h"
#include "tests/unit/text_fixture.h"
#include "text/byte_level.h"
#include "text/tokenizer.h"

using namespace moerun;
using nlohmann::json;
using Ids = std::vector<int32_t>;

namespace {

/// The 256 bytes and one added token.
json small_tokenizer() {
  json vocab = json::object();
  for (int byte = 0; byte < 256; ++byte)
    vocab[byte_level_spelling(std::string(1, static_cast<char>(byte)))] = byte;
  return {{"version", "1.0"},
          {"added_tokens", {{{"id", 256}, {"content", "<end>"}, {"special", true}}}},
          {"pre_tokenizer", {{"type", "ByteLevel"}, {"add_prefix_space", false}}},
          {"decoder", {{"type", "ByteLevel"}}},
          {"model", {{"type", "BPE"}, {"vocab", vocab}, {"merges", json::array()}}}};
}

Tokenizer loaded_with(const std::string& config) {
  const TemporaryDirectory folder;
  std::ofstream(folder / "tokenizer.json") << small_tokenizer().dump();
  std::ofstream(folder / "tokenizer_config.json") << config;
  return Tokenizer::load(folder.path());
}

}  // namespace

TEST_CASE("tokenizer_config.json adds tokens as transformers does, and says so", "[text]") {
  const std::string plain = R"("special": true, "normalized": false)";
  CHECK(
      loaded_with(
          R"({"eos_token": "<end>", "pad_token": null, "added_tokens_decoder": {"256": {"content": "<end>", )" +
          plain + "}}}")
          .notes()
          .empty());
  Tokenizer more = loaded_with(R"({"added_tokens_decoder": {"257": {"content": "<new>", )" + plain +
                               R"(}}, "eos_token": "<end2>", "extra_special_tokens": ["<x>", "b"]})");
  CHECK(more.notes().size() == 4);
  CHECK(more.encode("c<new><end2>b<x>") == Ids{'c', 257, 258, 'b', 259});
  CHECK(more.decode(Ids{'c', 257, 258, 'b', 259}, true) == "c");
  CHECK(more.checksum() != loaded_with("{}").checksum());

  Tokenizer other = loaded_with(R"({"added_tokens_decoder": {"256": {"content": "<end>", "lstrip": true, )" +
                                plain + "}}}");
  CHECK(other.encode("c  <end>") == Ids{'c', 256});
  REQUIRE(other.notes().size() == 1);
  CHECK(contains(other.notes()[0], "'<end>' has lstrip true"));
}

TEST_CASE("What tokenizer_config.json contradicts is refused with both files' names", "[text]") {
  const std::string end = R"(": {"content": "<end>"}}})", fresh = R"(": {"content": "<new>"}}})",
                    key = R"({"added_tokens_decoder": {")";
  for (const auto& [config, message] :
       {std::pair<std::string, const char*>{key + "25" + end, "the id 25, and by"},
        {key + "300" + fresh, "it is 257"},
        {key + "-1" + fresh, "'-1' for an id"},
        {key + "99999999999" + fresh, "for an id"},
        {R"({"eos_token": 7})", "eos_token has an entry without content"},
        {R"({"eos_token": {"content": "<e>", "lstrip": 1}})", "lstrip of '<e>'"},
        {"[]", "is no JSON object"},
        {std::string(200'000, '['), "is nested more than"}}) {
    const std::string said = message_of<BadInput>([&] { loaded_with(config); });
    INFO(said);
    CHECK(contains(said, message));
    CHECK(contains(said, "tokenizer_config.json"));
  }
}

TEST_CASE("Many added tokens and long runs take time in proportion", "[text]") {
  json file = small_tokenizer();
  for (int i = 0; i < 5000; ++i)
    file["added_tokens"].push_back(
        {{"id", 257 + i}, {"content", "<<<<<<" + std::to_string(i) + ">"}, {"special", true}});
  file["added_tokens"].push_back({{"id", 5257}, {"content", "  "}, {"lstrip", true}});
  Tokenizer tokenizer = Tokenizer::from_json(file.dump(), "test");
  CHECK(tokenizer.encode("a<<<<<<<42>") == Ids{'a', '<', 299});
  CHECK(tokenizer.encode(std::string(1'000'000, '<')).size() == 1'000'000);
  CHECK(tokenizer.encode(std::string(1'000'000, ' ')).size() == 500'000);
}
