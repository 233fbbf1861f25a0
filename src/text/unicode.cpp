#include "text/unicode.h"

#include <utf8proc.h>

namespace moerun {

Utf8Unit utf8_unit_at(std::string_view bytes, size_t pos) {
  using enum Utf8Unit::Kind;
  const auto lead = static_cast<uint8_t>(bytes[pos]);
  if (lead < 0x80) return {valid, 1};
  size_t continuation = 0;
  uint8_t low = 0x80, high = 0xBF;  // of the second byte
  if (lead >= 0xC2 && lead <= 0xDF) {
    continuation = 1;
  } else if (lead >= 0xE0 && lead <= 0xEF) {
    continuation = 2;
    if (lead == 0xE0) low = 0xA0;   // overlong
    if (lead == 0xED) high = 0x9F;  // surrogates
  } else if (lead >= 0xF0 && lead <= 0xF4) {
    continuation = 3;
    if (lead == 0xF0) low = 0x90;   // overlong
    if (lead == 0xF4) high = 0x8F;  // past U+10FFFF
  } else {
    return {invalid, 1};
  }
  for (size_t i = 1; i <= continuation; ++i) {
    if (pos + i == bytes.size()) return {incomplete, i};
    const auto byte = static_cast<uint8_t>(bytes[pos + i]);
    if (byte < low || byte > high) return {invalid, i};
    low = 0x80;
    high = 0xBF;
  }
  return {valid, continuation + 1};
}

size_t append_lossy_utf8(std::string_view bytes, std::string& out) {
  for (size_t pos = 0; pos < bytes.size();) {
    const Utf8Unit unit = utf8_unit_at(bytes, pos);
    if (unit.kind == Utf8Unit::Kind::incomplete) return pos;
    out += unit.kind == Utf8Unit::Kind::valid ? bytes.substr(pos, unit.length) : kReplacementCharacter;
    pos += unit.length;
  }
  return bytes.size();
}

std::optional<size_t> find_invalid_utf8(std::string_view bytes) {
  for (size_t pos = 0; pos < bytes.size();) {
    const Utf8Unit unit = utf8_unit_at(bytes, pos);
    if (unit.kind != Utf8Unit::Kind::valid) return pos;
    pos += unit.length;
  }
  return std::nullopt;
}

char32_t code_point_at(std::string_view text, size_t pos) {
  const auto byte = [&](size_t i) { return static_cast<char32_t>(static_cast<uint8_t>(text[pos + i])); };
  const char32_t lead = byte(0);
  if (lead < 0x80) return lead;
  if (lead < 0xE0) return (lead & 0x1F) << 6 | (byte(1) & 0x3F);
  if (lead < 0xF0) return (lead & 0x0F) << 12 | (byte(1) & 0x3F) << 6 | (byte(2) & 0x3F);
  return (lead & 0x07) << 18 | (byte(1) & 0x3F) << 12 | (byte(2) & 0x3F) << 6 | (byte(3) & 0x3F);
}

char32_t previous_code_point(std::string_view text, size_t& pos) {
  do --pos;
  while ((static_cast<uint8_t>(text[pos]) & 0xC0) == 0x80);
  return code_point_at(text, pos);
}

bool is_white_space(char32_t c) {
  return (c >= 0x09 && c <= 0x0D) || c == 0x20 || c == 0x85 || c == 0xA0 || c == 0x1680 ||
         (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F ||
         c == 0x3000;
}

bool is_word(char32_t c) {
  switch (utf8proc_category(static_cast<utf8proc_int32_t>(c))) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_PC:
      return true;
    default:
      break;
  }
  const bool join_control = c == 0x200C || c == 0x200D;
  const bool circled_letter = (c >= 0x24B6 && c <= 0x24E9) || (c >= 0x1F130 && c <= 0x1F149) ||
                              (c >= 0x1F150 && c <= 0x1F169) || (c >= 0x1F170 && c <= 0x1F189);
  return join_control || circled_letter;  // Other_Alphabetic symbols; its marks are M above
}

}  // namespace moerun
