#include <algorithm>
#include <cstdlib>

#include "text/jinja/case_mapping.h"
#include "text/jinja/filters.h"
#include "text/jinja/operators.h"
#include "text/jinja/text.h"
#include "text/unicode.h"

// What Python's str methods and Jinja's filters take texts apart with, and the numbers that texts spell.
namespace moerun::jinja {
namespace {

/// Digits with single underscores between them, those taken out; none for others.
std::optional<std::string> plain_digits(std::string_view text) {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '_') {
      out += text[i];
    } else if (i == 0 || i + 1 == text.size() || text[i + 1] == '_') {
      return std::nullopt;
    }
  }
  return out;
}

}  // namespace

std::vector<std::string_view> split_lines(std::string_view text, bool keep_ends) {
  std::vector<std::string_view> out;
  for (size_t begin = 0, pos = 0; pos < text.size();) {
    const char32_t c = code_point_at(text, pos);
    size_t end = pos + utf8_unit_at(text, pos).length;
    const bool ends =
        (c >= '\n' && c <= '\r') || (c >= 0x1C && c <= 0x1E) || c == 0x85 || c == 0x2028 || c == 0x2029;
    if (c == '\r' && end < text.size() && text[end] == '\n') ++end;
    if (ends) {
      out.push_back(text.substr(begin, (keep_ends ? end : pos) - begin));
      begin = end;
    } else if (end == text.size()) {
      out.push_back(text.substr(begin));
    }
    pos = end;
  }
  return out;
}

std::string replaced(Runtime& runtime, std::string_view text, std::string_view from, std::string_view to,
                     int64_t most) {
  std::string out;
  size_t begin = 0;
  const auto check = [&] {
    if (out.size() > kMaxOutputBytes) throw TemplateError("a text is too long", TemplateError::Kind::limit);
  };
  for (int64_t done = 0; most < 0 || done < most; ++done) {
    const size_t at = from.empty() ? begin : find_text(text, from, begin);
    if (at == std::string_view::npos) break;
    if (from.empty()) {  // between all characters
      out += to;
      if (at == text.size()) return out;
      const size_t bytes = utf8_unit_at(text, at).length;
      out += text.substr(at, bytes);
      begin = at + bytes;
    } else {
      out += text.substr(begin, at - begin);
      out += to;
      begin = at + from.size();
    }
    runtime.step();
    check();
  }
  out += text.substr(std::min(begin, text.size()));
  return out;
}

std::string_view stripped(std::string_view text, const std::string* set, bool left, bool right) {
  if (!set) {
    if (left) text = strip_left(text);
    return right ? strip_right(text) : text;
  }
  const auto in_set = [&](std::string_view character) {
    return find_text(*set, character) != std::string_view::npos;
  };
  while (left && !text.empty()) {
    const size_t bytes = utf8_unit_at(text, 0).length;
    if (!in_set(text.substr(0, bytes))) break;
    text.remove_prefix(bytes);
  }
  while (right && !text.empty()) {
    size_t pos = text.size();
    previous_code_point(text, pos);
    if (!in_set(text.substr(pos))) break;
    text = text.substr(0, pos);
  }
  return text;
}

std::optional<Integer> parse_integer(std::string_view text, int64_t base) {
  text = stripped(text, nullptr, true, true);
  const bool negative = text.starts_with('-');
  if (negative || text.starts_with('+')) text.remove_prefix(1);
  if (text.size() > 2 && text[0] == '0') {
    const char kind = static_cast<char>(text[1] | 0x20);
    const int64_t of_kind = kind == 'x' ? 16 : kind == 'o' ? 8 : kind == 'b' ? 2 : 0;
    if (of_kind > 0 && (base == of_kind || base == 0)) {
      base = of_kind;
      text.remove_prefix(2);
      if (text.starts_with('_')) text.remove_prefix(1);
    }
  }
  if (base == 0) base = 10;
  if (base < 2 || base > 36) return std::nullopt;
  const auto digits = plain_digits(text);
  if (!digits || digits->empty()) return std::nullopt;
  for (const char c : *digits) {
    const int digit = c >= '0' && c <= '9'                     ? c - '0'
                      : (c | 0x20) >= 'a' && (c | 0x20) <= 'z' ? (c | 0x20) - 'a' + 10
                                                               : 99;
    if (digit >= base) return std::nullopt;
  }
  constexpr size_t kMostDigits = 4300;  // Python raises ValueError past these
  if (digits->size() > kMostDigits) return std::nullopt;
  const Integer value = Integer::from_digits(*digits, static_cast<int>(base));
  return negative ? -value : value;
}

std::optional<double> parse_float(std::string_view text) {
  const auto plain = plain_digits(stripped(text, nullptr, true, true));
  if (!plain || plain->empty()) return std::nullopt;
  const std::string word = lower(*plain);
  const std::string_view unsigned_word = std::string_view(word).substr(word[0] == '-' || word[0] == '+');
  const bool special = unsigned_word == "inf" || unsigned_word == "infinity" || unsigned_word == "nan";
  if (!special && word.find_first_not_of("0123456789.e+-") != std::string::npos) return std::nullopt;
  char* end = nullptr;
  const double value = std::strtod(word.c_str(), &end);
  if (end != word.c_str() + word.size()) return std::nullopt;
  return value;
}

}  // namespace moerun::jinja
