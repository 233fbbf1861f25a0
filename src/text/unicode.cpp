#include "text/unicode.h"

#include <algorithm>
#include <cstring>

#include "text/unicode_tables.h"

namespace moerun {
namespace {

using unicode_tables::Category;

Category category_of(char32_t c) {
  const auto runs = unicode_tables::category_runs();
  const auto behind = std::upper_bound(
      runs.begin(), runs.end(), c,
      [](char32_t value, const unicode_tables::CategoryRun& run) { return value < run.first; });
  return behind[-1].category;
}

}  // namespace

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
    if (uint64_t eight = 0; bytes.size() - pos >= sizeof eight) {  // most text is ASCII
      std::memcpy(&eight, bytes.data() + pos, sizeof eight);
      if ((eight & 0x8080808080808080) == 0) {
        pos += sizeof eight;
        continue;
      }
    }
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

std::optional<CodePointSet> property_set(std::string_view name) {
  for (const unicode_tables::Script& script : unicode_tables::scripts())
    if (script.name == name) return CodePointSet({script.ranges.begin(), script.ranges.end()});
  std::vector<CodePointRange> ranges;
  const auto runs = unicode_tables::category_runs();
  for (size_t i = 0; i < runs.size(); ++i) {
    const std::string_view category = unicode_tables::kCategoryNames[static_cast<size_t>(runs[i].category)];
    if (category == name || (name.size() == 1 && category[0] == name[0]))
      ranges.push_back({runs[i].first, i + 1 < runs.size() ? runs[i + 1].first - 1 : kMaxCodePoint});
  }
  if (ranges.empty()) return std::nullopt;
  return CodePointSet(std::move(ranges));
}

const CodePointSet& white_space() {
  static const CodePointSet set({{0x09, 0x0D},
                                 {0x20, 0x20},
                                 {0x85, 0x85},
                                 {0xA0, 0xA0},
                                 {0x1680, 0x1680},
                                 {0x2000, 0x200A},
                                 {0x2028, 0x2029},
                                 {0x202F, 0x202F},
                                 {0x205F, 0x205F},
                                 {0x3000, 0x3000}});
  return set;
}

bool is_white_space(char32_t c) { return white_space().contains(c); }

bool is_numeric(char32_t c) {
  const Category category = category_of(c);
  return category >= Category::Nd && category <= Category::No;
}

bool is_word(char32_t c) {
  const Category category = category_of(c);
  if (category <= Category::Nl || category == Category::Pc) return true;  // L, M, Nd, Nl
  const bool join_control = c == 0x200C || c == 0x200D;
  const bool circled_letter = (c >= 0x24B6 && c <= 0x24E9) || (c >= 0x1F130 && c <= 0x1F149) ||
                              (c >= 0x1F150 && c <= 0x1F169) || (c >= 0x1F170 && c <= 0x1F189);
  return join_control || circled_letter;  // Other_Alphabetic symbols; its marks are M above
}

}  // namespace moerun
