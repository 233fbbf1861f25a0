#include "text/oniguruma_pattern.h"

#include <fmt/format.h>

#include <array>
#include <charconv>
#include <optional>

#include "moerun/error.h"
#include "text/unicode.h"

namespace moerun {
namespace {

constexpr size_t kMaxPatternBytes = 65536;
constexpr int kMaxNesting = 64;

CodePointSet single(char32_t c) { return CodePointSet({{c, c}}); }

bool is_ascii_letter(char32_t c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }

class Parser {
 public:
  explicit Parser(std::string_view regex) : regex_(regex) {}

  std::vector<PatternPart> parse() {
    if (regex_.size() > kMaxPatternBytes) refuse(fmt::format("more than {} bytes", kMaxPatternBytes));
    if (find_invalid_utf8(regex_)) refuse("bytes that are no UTF-8");
    while (pos_ < regex_.size()) part();
    if (caseless_.size() != 1) refuse("a group that is not closed");
    return std::move(parts_);
  }

 private:
  [[noreturn]] void refuse(std::string_view what) const {
    const std::string_view shown = regex_.substr(0, 200);
    throw Error(
        fmt::format("tokenizer.json: the split pattern '{}{}' uses {}, which this program does not know",
                    shown, shown.size() < regex_.size() ? "..." : "", what));
  }

  bool at(std::string_view text) const { return regex_.substr(pos_, text.size()) == text; }
  bool take(std::string_view text) {
    if (!at(text)) return false;
    pos_ += text.size();
    return true;
  }
  char32_t take_code_point() {
    const char32_t c = code_point_at(regex_, pos_);
    pos_ += utf8_unit_at(regex_, pos_).length;
    return c;
  }

  void part() {
    if (at("(")) return open_group();
    if (take(")")) {
      if (caseless_.size() == 1) refuse("a ')' too many");
      caseless_.pop_back();
      return syntax(")");
    }
    if (take("|")) {
      last_letter_ = 0;
      return syntax("|");
    }
    if (at("*") || at("+") || at("?") || at("{")) return repeat();
    if (take("^")) return syntax("(?:\\A|(?<=", single('\n'), ")(?!\\z))");
    if (take("$")) return syntax("(?=", single('\n'), "|\\z)");
    if (take(".")) return character(single('\n').complement());
    if (take("[")) return character(character_class(0));
    if (take("\\A")) return syntax("\\A");
    if (take("\\z")) return syntax("\\z");
    if (take("\\Z")) return syntax("(?=", single('\n'), "?\\z)");
    if (take("\\")) return escape_part();
    literal(take_code_point());
  }

  void syntax(std::string text) { parts_.emplace_back(std::move(text)); }
  void syntax(std::string before, CodePointSet set, std::string behind) {
    parts_.emplace_back(std::move(before));
    parts_.emplace_back(std::move(set));
    parts_.emplace_back(std::move(behind));
  }
  void character(CodePointSet set) {
    last_letter_ = 0;
    parts_.emplace_back(std::move(set));
  }

  void literal(char32_t c) {
    if (!caseless_.back()) return character(single(c));
    // Characters that fold to several ("ß" to "ss") match two letters of a caseless pattern.
    for (const std::string_view pair : {"ss", "st", "ff", "fi", "fl"})
      if (last_letter_ == static_cast<char32_t>(pair[0]) && (c | 0x20) == static_cast<char32_t>(pair[1]))
        refuse(fmt::format("'{}' without regard to case", pair));
    CodePointSet set = caseless(single(c));
    character(std::move(set));
    last_letter_ = is_ascii_letter(c) ? c | 0x20 : 0;
  }

  /// What `set` matches without regard to case. Of ASCII's letters, k and s have a third case.
  CodePointSet caseless(const CodePointSet& set) const {
    std::vector<CodePointRange> ranges(set.ranges().begin(), set.ranges().end());
    for (const CodePointRange& range : set.ranges())
      if (range.last >= 0x80) refuse("a character outside of ASCII without regard to case");
    for (char32_t lower = 'a'; lower <= 'z'; ++lower) {
      const char32_t upper = lower - 'a' + 'A';
      if (!set.contains(lower) && !set.contains(upper)) continue;
      ranges.insert(ranges.end(), {{lower, lower}, {upper, upper}});
      if (lower == 'k') ranges.push_back({0x212A, 0x212A});
      if (lower == 's') ranges.push_back({0x17F, 0x17F});
    }
    return CodePointSet(std::move(ranges));
  }

  void open_group() {
    last_letter_ = 0;
    if (caseless_.size() > static_cast<size_t>(kMaxNesting))
      refuse(fmt::format("groups nested {} deep", kMaxNesting + 1));
    for (const std::string_view group : {"(?:", "(?>", "(?=", "(?!", "(?<=", "(?<!"})
      if (take(group)) {
        caseless_.push_back(caseless_.back());
        return syntax(std::string(group));
      }
    if (take("(?i:")) {
      caseless_.push_back(true);
      return syntax("(?:");
    }
    if (at("(?") || at("(*")) refuse(fmt::format("the group '{}'", regex_.substr(pos_, 3)));
    take("(");
    caseless_.push_back(caseless_.back());
    syntax("(?:");
  }

  void repeat() {
    std::string text;
    const bool interval = take("{");
    bool fixed = false;
    if (interval) {
      const std::string from = take_digits();
      fixed = !take(",");
      const std::string to = fixed ? std::string() : take_digits();
      if (!take("}") || (from.empty() && to.empty()) || (fixed && from.empty()))
        refuse("a '{' that opens no interval");
      text = fmt::format("{{{}{}{}}}", from.empty() ? "0" : from, fixed ? "" : ",", to);
    } else {
      text = static_cast<char>(take_code_point());
    }
    if (take("+")) {
      if (interval) refuse("'}+'");  // possessive in PCRE2, a repeated repeat in Oniguruma
      text += '+';
    } else if (take("?")) {
      if (fixed) refuse("'{n}?'");  // lazy in PCRE2, an optional one in Oniguruma
      text += '?';
    }
    if (at("*") || at("+") || at("?") || at("{")) refuse("a repeat of a repeat");
    syntax(std::move(text));
  }

  std::string take_digits() {
    const size_t begin = pos_;
    while (pos_ < regex_.size() && regex_[pos_] >= '0' && regex_[pos_] <= '9') ++pos_;
    if (pos_ - begin > 5) refuse("an interval of more than 65535");
    return std::string(regex_.substr(begin, pos_ - begin));
  }

  void escape_part() {
    const Escape escape = take_escape();
    if (escape.literal) return literal(*escape.literal);
    if (caseless_.back() && escape.cased) refuse("a property without regard to case");
    character(escape.set);
  }

  /// What stands behind a backslash.
  struct Escape {
    CodePointSet set;
    std::optional<char32_t> literal;
    bool cased = false;  // a property may have one case of a letter and not the other
  };

  Escape take_escape() {
    if (pos_ == regex_.size()) refuse("a backslash at its end");
    const char escape = regex_[pos_++];
    switch (escape) {
      case 's':
        return {.set = white_space()};
      case 'S':
        return {.set = white_space().complement()};
      case 'd':
        return {.set = *property_set("Nd")};
      case 'D':
        return {.set = property_set("Nd")->complement()};
      case 'p':
      case 'P':
        return {.set = property(escape == 'P'), .cased = true};
      case 'n':
        return {.literal = '\n'};
      case 'r':
        return {.literal = '\r'};
      case 't':
        return {.literal = '\t'};
      case 'f':
        return {.literal = '\f'};
      case 'v':
        return {.literal = '\v'};
      case 'u':
        return {.literal = take_hex(4)};
      case 'x': {
        if (take("{")) {
          const size_t close = regex_.find('}', pos_);
          if (close == std::string_view::npos || close == pos_ || close - pos_ > 8)
            refuse("'\\x{' without a number");
          const char32_t c = take_hex(close - pos_);
          ++pos_;
          return {.literal = c};
        }
        const char32_t c = take_hex(2);
        if (c >= 0x80) refuse("\\x for a byte outside of ASCII");
        return {.literal = c};
      }
      default:
        break;
    }
    if (std::string_view("\\^$.|?*+()[]{}-/'\"&#%@!,:;<=>~_` ").find(escape) == std::string_view::npos)
      refuse(fmt::format("the escape \\{}", regex_.substr(pos_ - 1, utf8_unit_at(regex_, pos_ - 1).length)));
    return {.literal = static_cast<char32_t>(escape)};
  }

  char32_t take_hex(size_t digits) {
    uint32_t value = 0;
    const std::string_view text = regex_.substr(pos_, digits);
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value, 16);
    if (text.size() != digits || error != std::errc() || end != text.data() + text.size() ||
        value > kMaxCodePoint || (value >= 0xD800 && value <= 0xDFFF))
      refuse(fmt::format("'{}' for a code point", text));
    pos_ += digits;
    return value;
  }

  CodePointSet property(bool negated) {
    const size_t close = regex_.find('}', pos_);
    if (!take("{") || close == std::string_view::npos) refuse("a property without braces");
    if (take("^")) negated = !negated;
    const std::string_view name = regex_.substr(pos_, close - pos_);
    const auto set = property_set(name);
    if (!set) refuse(fmt::format("the property '{}'", name));
    pos_ = close + 1;
    return negated ? set->complement() : *set;
  }

  /// Behind the '['. An intersection binds weaker than what stands side by side.
  CodePointSet character_class(int depth) {
    if (depth == kMaxNesting) refuse(fmt::format("classes nested {} deep", kMaxNesting + 1));
    const bool negated = take("^");
    CodePointSet set;
    std::optional<CodePointSet> left;  // of the last &&
    for (bool first = true; first || !at("]"); first = false) {
      if (pos_ >= regex_.size()) refuse("a class that is not closed");
      if (first && at("]")) refuse("an empty class");
      if (at("[:")) refuse("a POSIX bracket");
      if (take("&&")) {
        left = left ? left->intersected(set) : set;
        set = {};
      } else if (take("[")) {
        set = set.united(character_class(depth + 1));
      } else {
        set = set.united(class_item());
      }
    }
    take("]");
    if (left) set = left->intersected(set);
    return negated ? set.complement() : set;
  }

  CodePointSet class_item() {
    const auto end_of_range = [&]() -> Escape {
      if (!take("\\")) return {.literal = take_code_point()};
      return take_escape();
    };
    const Escape from = end_of_range();
    if (!from.literal) {
      if (caseless_.back() && from.cased) refuse("a property without regard to case");
      if (at("-") && !at("-]")) refuse("a range from a property");
      return from.set;
    }
    CodePointSet set = single(*from.literal);
    if (at("-") && !at("-]") && !at("-[") && !at("-&&")) {
      take("-");
      const Escape to = end_of_range();
      if (!to.literal || *to.literal < *from.literal) refuse("a range without an end");
      set = CodePointSet({{*from.literal, *to.literal}});
    }
    return caseless_.back() ? caseless(set) : set;
  }

  std::string_view regex_;
  size_t pos_ = 0;
  std::vector<PatternPart> parts_;
  std::vector<bool> caseless_{false};  // of the open groups
  char32_t last_letter_ = 0;  // of a caseless pattern, where the next part follows it directly; lower case
};

}  // namespace

std::vector<PatternPart> parse_oniguruma(std::string_view regex) { return Parser(regex).parse(); }

}  // namespace moerun
