#include "tests/unit/text_fixture.h"
#include "text/byte_level.h"
#include "text/nfc.h"
#include "text/unicode.h"

using namespace moerun;

TEST_CASE("Ill-formed UTF-8 becomes one U+FFFD a maximal subpart", "[text]") {
  // Unicode 15.0, tables 3-8 to 3-11, and truncated ends.
  const auto lossy = [](std::string_view bytes) {
    std::string out;
    const size_t read = append_lossy_utf8(bytes, out);
    return out + (read < bytes.size() ? "[" + std::to_string(bytes.size() - read) + "]" : "");
  };
  const std::string r = "\uFFFD";
  CHECK(lossy("\xC0\xAF\xE0\x80\xBF\xF0\x81\x82\x41") == r + r + r + r + r + r + r + r + "A");
  CHECK(lossy("\xED\xA0\x80\xED\xBF\xBF\xED\xAF\x41") == r + r + r + r + r + r + r + r + "A");
  CHECK(lossy("\xF4\x91\x92\x93\xFF\x41\x80\xBF\x42") == r + r + r + r + r + "A" + r + r + "B");
  CHECK(lossy("\xE1\x80\xE2\xF0\x91\x92\xF1\xBF\x41") == r + r + r + r + "A");
  CHECK(lossy("a\xE2\x82") == "a[2]");
  CHECK(lossy("a\xF0\x9F\x99") == "a[3]");
  CHECK(lossy("\xF4\x8F\xBF\xBF") == "\U0010FFFF");
}

TEST_CASE("Normalization Form C", "[text]") {
  CHECK(nfc("plain") == "plain");
  CHECK(nfc("e\u0301") == "é");
  CHECK(nfc("a\u0301\u0327") == "\u00E1\u0327");
  CHECK(nfc("\u1100\u1161\u11A8") == "각");
  CHECK(nfc("\uAC00\u11A7") == "\uAC00\u11A7");
  CHECK(nfc("\u212B\u2126") == "ÅΩ");
  CHECK(nfc("\u0958") == "\u0915\u093C");  // excluded from composition
  CHECK(nfc("\u0344") == "\u0308\u0301");
  CHECK(nfc("a\U00011D97\u20D8\u0301") ==
        "a\U00011D97\u20D8\u0301");  // a mark that Unicode 9 does not have stays
  CHECK(nfc("").empty());
}

TEST_CASE("White space and words are Unicode's", "[text]") {
  for (char32_t c : {U'\t', U'\v', U' ', U'\u0085', U'\u00A0', U'\u2003', U'\u2028', U'\u3000'})
    CHECK(is_white_space(c));
  for (char32_t c : {U'a', U'\u180E', U'\u200B', U'\uFEFF', U'\x1C'}) CHECK_FALSE(is_white_space(c));
  for (char32_t c : {U'a', U'7', U'_', U'é', U'中', U'\u0301', U'\u200D', U'\u24B6', U'\u2163'})
    CHECK(is_word(c));
  for (char32_t c : {U' ', U'-', U'½', U'€', U'\u2013'}) CHECK_FALSE(is_word(c));
}

TEST_CASE("Character data is Unicode 16's", "[text]") {
  // How many code points Unicode 16.0.0 has in each, by its DerivedGeneralCategory.txt and Scripts.txt.
  const std::pair<const char*, uint32_t> sizes[] = {{"L", 141028}, {"Lu", 1858},   {"M", 2501},   {"N", 1911},
                                                    {"Nd", 760},   {"Cn", 819533}, {"Han", 99030}};
  for (const auto& [name, size] : sizes) {
    uint32_t counted = 0;
    const CodePointSet set = *property_set(name);
    for (const CodePointRange& range : set.ranges()) counted += range.last - range.first + 1;
    INFO(name);
    CHECK(counted == size);
  }
  CHECK_FALSE(property_set("Xx").has_value());
  CHECK_FALSE(property_set("").has_value());
  for (char32_t c : {U'\U000323AF', U'\U00011F04', U'\U0001E4D0', U'\U00010D4A'})
    CHECK(property_set("L")->contains(c));
  CHECK_FALSE(property_set("L")->contains(U'\U000323B0'));
}

TEST_CASE("The byte alphabet is a bijection", "[text]") {
  for (int byte = 0; byte < 256; ++byte) {
    const std::string bytes(1, static_cast<char>(byte));
    CHECK(byte_level_bytes(byte_level_spelling(bytes)) == bytes);
  }
  CHECK(byte_level_spelling(" t\n") == "ĠtĊ");
  CHECK(byte_level_bytes("a b") == "a b");  // a space spells nothing, so the token is its own UTF-8
}

TEST_CASE("what is no valid UTF-8 is found wherever it stands among ASCII", "[text]") {
  for (size_t before = 0; before < 20; ++before)
    for (size_t after = 0; after < 20; ++after) {
      const std::string left(before, 'a'), right(after, 'b');
      CHECK(find_invalid_utf8(left + "\xff" + right) == before);
      CHECK(find_invalid_utf8(left + "\xe2\x82" + right) == before);
      CHECK_FALSE(find_invalid_utf8(left + "\xe2\x82\xac" + right));
    }
}
