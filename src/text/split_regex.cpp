#define PCRE2_CODE_UNIT_WIDTH 8
#include "text/split_regex.h"

#include <fmt/format.h>
#include <pcre2.h>

#include <algorithm>
#include <array>
#include <bitset>
#include <map>
#include <new>

#include "moerun/error.h"
#include "text/oniguruma_pattern.h"
#include "text/unicode.h"

namespace moerun {
namespace {

using Bytes = std::bitset<256>;

// Of one match; in proportion to the text beyond the least.
constexpr size_t kLeastSteps = 10'000'000, kStepsPerByte = 64;

std::string pcre2_message(int code) {
  std::array<PCRE2_UCHAR, 256> buffer{};
  pcre2_get_error_message(code, buffer.data(), buffer.size());
  return reinterpret_cast<const char*>(buffer.data());
}

[[noreturn]] void refuse(const std::string& regex, std::string_view what) {
  throw Error(fmt::format("tokenizer.json: the split pattern '{}' {}", regex, what));
}

/// One character that is any of `bytes`, for PCRE2.
std::string byte_class(const Bytes& bytes) {
  if (bytes.none()) return "(?!)";
  std::string out = "[";
  for (size_t first = 0; first < bytes.size(); ++first) {
    if (!bytes[first]) continue;
    size_t last = first;
    while (last + 1 < bytes.size() && bytes[last + 1]) ++last;
    out += fmt::format("\\x{:02x}-\\x{:02x}", first, last);
    first = last;
  }
  return out + "]";
}

/// Numbers the kinds of code points outside of ASCII that `sets` tell apart from 0x80 on: `kinds` [code point
/// - 0x80], and for each set the bytes that are in it.
std::vector<Bytes> number_kinds(const std::vector<const CodePointSet*>& sets, const std::string& regex,
                                std::vector<uint8_t>& kinds) {
  std::vector<Bytes> members(sets.size());
  std::vector<char32_t> borders{0x80, kMaxCodePoint + 1};
  for (size_t i = 0; i < sets.size(); ++i) {
    for (char32_t c = 0; c < 0x80; ++c) members[i][c] = sets[i]->contains(c);
    for (const CodePointRange& range : sets[i]->ranges())
      for (const char32_t border : {range.first, static_cast<char32_t>(range.last + 1)})
        if (border > 0x80) borders.push_back(border);
  }
  std::sort(borders.begin(), borders.end());
  borders.erase(std::unique(borders.begin(), borders.end()), borders.end());

  kinds.resize(kMaxCodePoint + 1 - 0x80);
  std::map<std::vector<bool>, size_t> numbers;  // by which sets a code point is in
  for (size_t i = 0; i + 1 < borders.size(); ++i) {
    std::vector<bool> in(sets.size());
    for (size_t s = 0; s < sets.size(); ++s) in[s] = sets[s]->contains(borders[i]);
    const size_t number = numbers.emplace(in, 0x80 + numbers.size()).first->second;
    if (number >= 256) refuse(regex, "tells more than 128 kinds of characters outside of ASCII apart");
    for (size_t s = 0; s < sets.size(); ++s) members[s][number] = in[s];
    std::fill(kinds.begin() + (borders[i] - 0x80), kinds.begin() + (borders[i + 1] - 0x80),
              static_cast<uint8_t>(number));
  }
  return members;
}

}  // namespace

void SplitRegex::CodeDeleter::operator()(pcre2_real_code_8* code) const { pcre2_code_free(code); }
void SplitRegex::MatchDeleter::operator()(pcre2_real_match_data_8* match) const {
  pcre2_match_data_free(match);
}
void SplitRegex::ContextDeleter::operator()(pcre2_real_match_context_8* context) const {
  pcre2_match_context_free(context);
}

SplitRegex::SplitRegex(const std::string& oniguruma) {
  const std::vector<PatternPart> parts = parse_oniguruma(oniguruma);
  std::vector<const CodePointSet*> sets;
  for (const PatternPart& part : parts)
    if (const auto* set = std::get_if<CodePointSet>(&part)) sets.push_back(set);
  const std::vector<Bytes> members = number_kinds(sets, oniguruma, kinds_);
  std::string translated;
  size_t next_set = 0;
  for (const PatternPart& part : parts) {
    const auto* syntax = std::get_if<std::string>(&part);
    translated += syntax != nullptr ? *syntax : byte_class(members[next_set++]);
  }
  compile(oniguruma, translated);
}

void SplitRegex::compile(const std::string& oniguruma, const std::string& translated) {
  int error = 0;
  PCRE2_SIZE offset = 0;
  code_.reset(pcre2_compile(reinterpret_cast<PCRE2_SPTR>(translated.data()), translated.size(), 0, &error,
                            &offset, nullptr));
  if (!code_) refuse(oniguruma, fmt::format("does not compile: {}", pcre2_message(error)));
  uint32_t matches_empty = 0;
  pcre2_pattern_info(code_.get(), PCRE2_INFO_MATCHEMPTY, &matches_empty);
  if (matches_empty != 0) refuse(oniguruma, "matches nothing, which this program does not know");
  // Where PCRE2 was built without a compiler for this processor the interpreter gives the same matches,
  // slower.
  error = pcre2_jit_compile(code_.get(), PCRE2_JIT_COMPLETE);
  if (error != 0 && error != PCRE2_ERROR_JIT_BADOPTION)
    refuse(oniguruma, fmt::format("fails: {}", pcre2_message(error)));
  match_.reset(pcre2_match_data_create_from_pattern(code_.get(), nullptr));
  context_.reset(pcre2_match_context_create(nullptr));
  if (!match_ || !context_) throw std::bad_alloc();
}

void SplitRegex::find_all(std::string_view text, std::vector<std::pair<size_t, size_t>>& matches) {
  matches.clear();
  const bool ascii =
      std::all_of(text.begin(), text.end(), [](char c) { return static_cast<int8_t>(c) >= 0; });
  std::string_view written = text;
  if (!ascii) {
    written_.clear();
    for (size_t pos = 0; pos < text.size();) {
      const char32_t c = code_point_at(text, pos);
      written_ += static_cast<char>(c < 0x80 ? c : kinds_[c - 0x80]);
      pos += utf8_length(static_cast<uint8_t>(text[pos]));
    }
    written = written_;
  }
  // A long run of spaces is only long; a pattern that tries ever more ways is a stranger's.
  pcre2_set_match_limit(context_.get(), static_cast<uint32_t>(std::min<size_t>(
                                            kLeastSteps + kStepsPerByte * text.size(), UINT32_MAX)));
  const PCRE2_SIZE* found = pcre2_get_ovector_pointer(match_.get());
  size_t at = 0, byte = 0;  // the same place, in `written` and in `text`
  const auto byte_of = [&](size_t place) {
    if (ascii) return place;
    for (; at < place; ++at) byte += utf8_length(static_cast<uint8_t>(text[byte]));
    return byte;
  };
  for (size_t pos = 0; pos < written.size(); pos = found[1]) {
    const int rc = pcre2_match(code_.get(), reinterpret_cast<PCRE2_SPTR>(written.data()), written.size(), pos,
                               0, match_.get(), context_.get());
    if (rc == PCRE2_ERROR_NOMATCH) return;
    if (rc == PCRE2_ERROR_MATCHLIMIT)
      throw BadInput(fmt::format(
          "a split pattern of tokenizer.json needs too many steps for a text of {} bytes", text.size()));
    if (rc < 0) throw Error(fmt::format("splitting {} bytes of text: {}", text.size(), pcre2_message(rc)));
    const size_t begin = byte_of(found[0]);
    matches.emplace_back(begin, byte_of(found[1]));
  }
}

}  // namespace moerun
