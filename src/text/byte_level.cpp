#include "text/byte_level.h"

#include <array>
#include <cstdint>

#include "text/unicode.h"

namespace moerun {
namespace {

constexpr int kAlphabetEnd = 0x144;  // 256 bytes, 188 of them printable: the other 68 are U+0100 ... U+0143

constexpr bool spells_itself(int byte) {
  return (byte >= '!' && byte <= '~') || (byte >= 0xA1 && byte <= 0xAC) || (byte >= 0xAE && byte <= 0xFF);
}

struct Alphabet {
  std::array<uint16_t, 256> character{};     // [byte]
  std::array<int16_t, kAlphabetEnd> byte{};  // [character], -1: none
};

constexpr Alphabet make_alphabet() {
  Alphabet alphabet;
  for (auto& byte : alphabet.byte) byte = -1;
  int next = 0x100;
  for (int byte = 0; byte < 256; ++byte) {
    const int character = spells_itself(byte) ? byte : next++;
    alphabet.character[static_cast<size_t>(byte)] = static_cast<uint16_t>(character);
    alphabet.byte[static_cast<size_t>(character)] = static_cast<int16_t>(byte);
  }
  return alphabet;
}

constexpr Alphabet kAlphabet = make_alphabet();
static_assert(kAlphabet.character[' '] == 0x120 && kAlphabet.byte[kAlphabetEnd - 1] == 0xAD);

}  // namespace

std::string byte_level_spelling(std::string_view bytes) {
  std::string out;
  for (char byte : bytes) {
    const uint16_t character = kAlphabet.character[static_cast<uint8_t>(byte)];
    if (character < 0x80) {
      out += static_cast<char>(character);
    } else {
      out += static_cast<char>(0xC0 | character >> 6);
      out += static_cast<char>(0x80 | (character & 0x3F));
    }
  }
  return out;
}

std::string byte_level_bytes(std::string_view token) {
  std::string out;
  for (size_t pos = 0; pos < token.size(); pos += utf8_unit_at(token, pos).length) {
    const char32_t character = code_point_at(token, pos);
    const int byte = character < kAlphabetEnd ? kAlphabet.byte[character] : -1;
    if (byte < 0) return std::string(token);
    out += static_cast<char>(byte);
  }
  return out;
}

}  // namespace moerun
