#define PCRE2_CODE_UNIT_WIDTH 8
#include "text/pretokenizer.h"

#include <fmt/format.h>
#include <pcre2.h>

#include <array>
#include <cstdint>
#include <new>

#include "moerun/error.h"

namespace moerun {
namespace {

std::string pcre2_message(int code) {
  std::array<PCRE2_UCHAR, 256> buffer{};
  pcre2_get_error_message(code, buffer.data(), buffer.size());
  return reinterpret_cast<const char*>(buffer.data());
}

[[noreturn]] void refuse(std::string_view regex, std::string_view what) {
  throw Error(fmt::format("tokenizer.json: the split pattern '{}' uses {}, which this program does not know",
                          regex, what));
}

bool starts_with(std::string_view text, size_t pos, std::string_view prefix) {
  return text.substr(pos, prefix.size()) == prefix;
}

/// The property `p{...}` or `P{...}` for PCRE2. Oniguruma 6.9 knows Unicode 15, PCRE2 10.42 Unicode 14; of
/// all code points only the numbers that came between (Kaktovik numerals) are split otherwise by it, so they
/// are written out.
std::string property(std::string_view regex, std::string_view name, bool in_class) {
  constexpr std::string_view kNewerNumbers = R"(\x{1D2C0}-\x{1D2D3})";
  if (name != "p{N}" && name != "P{N}") return fmt::format("\\{}", name);
  if (!in_class) return fmt::format("[{}\\p{{N}}{}]", name[0] == 'P' ? "^" : "", kNewerNumbers);
  if (name[0] == 'P') refuse(regex, "\\P{N} in a class");
  return fmt::format("\\p{{N}}{}", kNewerNumbers);
}

}  // namespace

std::string oniguruma_to_pcre2(std::string_view regex) {
  std::string out;
  bool in_class = false;
  for (size_t i = 0; i < regex.size(); ++i) {
    const char c = regex[i];
    if (c == '\\') {
      if (++i == regex.size()) refuse(regex, "a backslash at its end");
      const char escape = regex[i];
      // PCRE2's own \s also takes U+180E, which lost White_Space in Unicode 6.3.
      if (escape == 's' || escape == 'S') {
        out += escape == 's' ? "\\p{White_Space}" : "\\P{White_Space}";
      } else if (escape == 'p' || escape == 'P') {
        const size_t close = regex.find('}', i);
        if (!starts_with(regex, i + 1, "{") || close == std::string_view::npos)
          refuse(regex, "a property without braces");
        out += property(regex, regex.substr(i, close + 1 - i), in_class);
        i = close;
      } else if (std::string_view("rnt").find(escape) != std::string_view::npos ||
                 std::string_view("\\^$.|?*+()[]{}-/'\" ").find(escape) != std::string_view::npos) {
        out += '\\';
        out += escape;
      } else {
        refuse(regex, fmt::format("the escape \\{}", escape));
      }
      continue;
    }
    if (in_class) {
      if (c == '[') refuse(regex, "a class inside a class");
      if (starts_with(regex, i, "&&")) refuse(regex, "an intersection of classes");
      in_class = c != ']';
    } else if (c == '[') {
      in_class = true;
    } else if (c == '^' || c == '$' || c == '.') {
      refuse(regex, fmt::format("'{}'", c));  // what counts as a line's end differs
    } else if (starts_with(regex, i, "(?")) {
      bool known = false;
      for (std::string_view group : {"(?:", "(?i:", "(?=", "(?!"}) known |= starts_with(regex, i, group);
      if (!known) refuse(regex, fmt::format("the group '{}'", regex.substr(i, 4)));
    } else if (starts_with(regex, i, "}+")) {
      refuse(regex, "'}+'");  // possessive in PCRE2, a repeated repeat in Oniguruma
    }
    out += c;
  }
  return out;
}

void Pretokenizer::CodeDeleter::operator()(pcre2_real_code_8* code) const { pcre2_code_free(code); }
void Pretokenizer::MatchDeleter::operator()(pcre2_real_match_data_8* match) const {
  pcre2_match_data_free(match);
}

void Pretokenizer::ContextDeleter::operator()(pcre2_real_match_context_8* context) const {
  pcre2_match_context_free(context);
}

Pretokenizer::Pretokenizer(const std::vector<std::string>& patterns)
    : context_(pcre2_match_context_create(nullptr)) {
  if (!context_) throw std::bad_alloc();
  // The default of ten million steps is there for patterns from strangers; a run of spaces that long is only
  // long.
  pcre2_set_match_limit(context_.get(), UINT32_MAX);
  for (const std::string& regex : patterns) patterns_.push_back(compile(regex));
}

Pretokenizer::Pattern Pretokenizer::compile(const std::string& regex) {
  const std::string translated = oniguruma_to_pcre2(regex);
  int error = 0;
  PCRE2_SIZE offset = 0;
  Pattern pattern;
  pattern.code.reset(pcre2_compile(reinterpret_cast<PCRE2_SPTR>(translated.data()), translated.size(),
                                   PCRE2_UTF | PCRE2_UCP, &error, &offset, nullptr));
  if (!pattern.code)
    throw Error(fmt::format("tokenizer.json: the split pattern '{}' does not compile: {} at {}", regex,
                            pcre2_message(error), offset));
  uint32_t matches_empty = 0;
  pcre2_pattern_info(pattern.code.get(), PCRE2_INFO_MATCHEMPTY, &matches_empty);
  if (matches_empty != 0) refuse(regex, "a match of nothing");
  // Where PCRE2 was built without a compiler for this processor the interpreter gives the same matches,
  // slower.
  error = pcre2_jit_compile(pattern.code.get(), PCRE2_JIT_COMPLETE);
  if (error != 0 && error != PCRE2_ERROR_JIT_BADOPTION)
    throw Error(fmt::format("tokenizer.json: the split pattern '{}': {}", regex, pcre2_message(error)));
  pattern.match.reset(pcre2_match_data_create_from_pattern(pattern.code.get(), nullptr));
  if (!pattern.match) throw std::bad_alloc();
  return pattern;
}

void Pretokenizer::split(std::string_view text, std::vector<std::string_view>& pieces) {
  if (patterns_.empty()) {
    if (!text.empty()) pieces.push_back(text);
    return;
  }
  if (patterns_.size() == 1) return split_by(patterns_[0], text, pieces);
  std::vector<std::string_view> current{text};
  for (const Pattern& pattern : patterns_) {
    scratch_.clear();
    for (std::string_view piece : current) split_by(pattern, piece, scratch_);
    current.swap(scratch_);
  }
  pieces.insert(pieces.end(), current.begin(), current.end());
}

void Pretokenizer::split_by(const Pattern& pattern, std::string_view text,
                            std::vector<std::string_view>& pieces) const {
  const PCRE2_SIZE* found = pcre2_get_ovector_pointer(pattern.match.get());
  for (size_t pos = 0; pos < text.size();) {
    const int rc = pcre2_match(pattern.code.get(), reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(),
                               pos, PCRE2_NO_UTF_CHECK, pattern.match.get(), context_.get());
    if (rc == PCRE2_ERROR_NOMATCH) {
      pieces.push_back(text.substr(pos));
      return;
    }
    if (rc < 0) throw Error(fmt::format("splitting {} bytes of text: {}", text.size(), pcre2_message(rc)));
    if (found[0] > pos) pieces.push_back(text.substr(pos, found[0] - pos));
    pieces.push_back(text.substr(found[0], found[1] - found[0]));
    pos = found[1];
  }
}

}  // namespace moerun
