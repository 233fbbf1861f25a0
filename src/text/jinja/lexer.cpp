#include "text/jinja/lexer.h"

#include <algorithm>
#include <array>
#include <cstdlib>

#include "text/jinja/text.h"
#include "text/unicode.h"

namespace moerun::jinja {
namespace {

constexpr std::array<std::string_view, 27> kOperators{"**", "//", "==", "!=", ">=", "<=", "+", "-", "/",
                                                      "*",  "%",  "~",  "[",  "]",  "(",  ")", "{", "}",
                                                      ">",  "<",  "=",  ".",  ":",  "|",  ",", ";", ""};

std::string with_plain_line_ends(std::string_view source) {
  std::string out;
  out.reserve(source.size());
  for (size_t i = 0; i < source.size(); ++i) {
    if (source[i] == '\r') {
      out += '\n';
      if (i + 1 < source.size() && source[i + 1] == '\n') ++i;
    } else {
      out += source[i];
    }
  }
  if (out.ends_with('\n')) out.pop_back();
  return out;
}

bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool is_hex(char c) { return is_digit(c) || ((c | 0x20) >= 'a' && (c | 0x20) <= 'f'); }

class Lexer {
 public:
  explicit Lexer(std::string_view source) : source_(with_plain_line_ends(source)) {}

  std::vector<Token> run() {
    while (pos_ < source_.size()) read_data();
    add(Token::Type::end, "");
    return std::move(tokens_);
  }

 private:
  [[noreturn]] void fail(const std::string& what) const {
    throw TemplateError(what, TemplateError::Kind::fault, line_);
  }

  void add(Token::Type type, std::string text, Value number = {}) {
    tokens_.push_back({type, std::move(text), line_, std::move(number)});
  }

  bool at(std::string_view text) const { return std::string_view(source_).substr(pos_).starts_with(text); }

  void advance(size_t count) {
    line_ += static_cast<int>(std::count(source_.begin() + static_cast<std::ptrdiff_t>(pos_),
                                         source_.begin() + static_cast<std::ptrdiff_t>(pos_ + count), '\n'));
    pos_ += count;
    if (count > 0) line_starting_ = source_[pos_ - 1] == '\n';
  }

  void skip_space() {
    const std::string_view rest = std::string_view(source_).substr(pos_);
    advance(rest.size() - strip_left(rest).size());
  }

  /// The sign behind a tag's opening: '-', '+' or 0.
  char sign_at(size_t pos) const {
    return pos < source_.size() && (source_[pos] == '-' || source_[pos] == '+') ? source_[pos] : '\0';
  }

  /// Text up to the next tag, less what the tag strips, then the tag.
  void read_data() {
    size_t tag = pos_;
    for (;; ++tag) {
      tag = source_.find('{', tag);
      if (tag == std::string::npos || tag + 1 == source_.size()) {
        const std::string rest = source_.substr(pos_);
        add(Token::Type::data, rest);
        return advance(rest.size());
      }
      const char kind = source_[tag + 1];
      if (kind == '{' || kind == '%' || kind == '#') break;
    }
    const char kind = source_[tag + 1];
    const char sign = sign_at(tag + 2);
    add_stripped(source_.substr(pos_, tag - pos_), sign, kind == '{');
    advance(tag + 2 + (sign != '\0') - pos_);
    if (kind == '#') return skip_comment();
    if (kind == '%' && begins_raw()) return read_raw();
    add(kind == '{' ? Token::Type::variable_begin : Token::Type::block_begin, "");
    read_tag(kind == '{');
  }

  /// Data before a tag: a '-' strips all white space at its end, lstrip_blocks what is on the tag's line.
  void add_stripped(std::string text, char sign, bool variable) {
    if (sign == '-') {
      text.resize(strip_right(text).size());
    } else if (sign != '+' && !variable) {
      const size_t line_start = text.rfind('\n') + 1;  // npos + 1 is 0
      if ((line_start > 0 || line_starting_) && strip_left(text.substr(line_start)).empty())
        text.resize(line_start);
    }
    if (!text.empty()) add(Token::Type::data, std::move(text));
  }

  /// The end of a comment or block: `+%}`, `-%}` with the white space behind it, `%}` with a line end.
  bool skip_end(std::string_view end, bool trims) {
    const char sign = sign_at(pos_);
    const size_t signs = sign != '\0';
    if (!std::string_view(source_).substr(std::min(pos_ + signs, source_.size())).starts_with(end))
      return false;
    if (sign == '+' && !trims) return false;  // `+}}` is no end of a variable
    advance(signs + end.size());
    if (sign == '-')
      skip_space();
    else if (trims && sign != '+' && at("\n"))
      advance(1);
    return true;
  }

  void skip_comment() {
    const size_t end = source_.find("#}", pos_);
    if (end == std::string::npos) fail("Missing end of comment tag");
    advance(end - pos_ - (end > pos_ && sign_at(end - 1) != '\0'));
    skip_end("#}", true);
  }

  /// Whether a block tag just opened is `raw`; passes over it then.
  bool begins_raw() {
    const std::string_view rest = std::string_view(source_).substr(pos_);
    std::string_view after = strip_left(rest);
    if (!after.starts_with("raw")) return false;
    after = strip_left(after.substr(3));
    const bool strips = after.starts_with("-%}");
    if (!strips && !after.starts_with("%}")) return false;
    advance(rest.size() - after.size() + (strips ? 3 : 2));
    if (strips) skip_space();
    return true;
  }

  void read_raw() {
    for (size_t tag = source_.find("{%", pos_); tag != std::string::npos; tag = source_.find("{%", tag + 1)) {
      const char sign = sign_at(tag + 2);
      const size_t inside = tag + 2 + (sign != '\0');
      const std::string_view rest = std::string_view(source_).substr(inside);
      const std::string_view word = strip_left(rest);
      if (!word.starts_with("endraw")) continue;
      const std::string_view end = strip_left(word.substr(6));
      if (!end.starts_with("%}") && !end.starts_with("-%}") && !end.starts_with("+%}")) continue;
      add_stripped(source_.substr(pos_, tag - pos_), sign, false);
      advance(inside + (rest.size() - end.size()) - pos_);
      skip_end("%}", true);
      return;
    }
    fail("Missing end of raw directive");
  }

  void read_tag(bool variable) {
    std::string open;  // brackets that wait for their partners
    for (;;) {
      skip_space();
      if (pos_ == source_.size()) return;
      if (open.empty() && skip_end(variable ? "}}" : "%}", !variable))
        return add(variable ? Token::Type::variable_end : Token::Type::block_end, "");
      const char c = source_[pos_];
      if (is_digit(c))
        read_number();
      else if (c == '\'' || c == '"')
        read_string(c);
      else if (!read_name())
        read_operator(open);
    }
  }

  bool read_name() {
    size_t end = pos_;
    while (end < source_.size()) {
      const char32_t c = code_point_at(source_, end);
      if (c != '_' && !(is_word(c) && c != 0x200C && c != 0x200D)) break;
      end += utf8_unit_at(source_, end).length;
    }
    if (end == pos_) return false;
    add(Token::Type::name, source_.substr(pos_, end - pos_));
    advance(end - pos_);
    return true;
  }

  void read_operator(std::string& open) {
    const auto op = std::find_if(kOperators.begin(), kOperators.end(), [&](auto text) { return at(text); });
    if (op->empty())
      fail(fmt::format("unexpected char {}",
                       shown_text(source_.substr(pos_, utf8_unit_at(source_, pos_).length))));
    if (*op == "(" || *op == "[" || *op == "{") {
      open += *op == "(" ? ')' : *op == "[" ? ']' : '}';
    } else if (*op == ")" || *op == "]" || *op == "}") {
      if (open.empty()) fail(fmt::format("unexpected '{}'", *op));
      if (open.back() != op->front()) fail(fmt::format("unexpected '{}', expected '{}'", *op, open.back()));
      open.pop_back();
    }
    add(Token::Type::op, std::string(*op));
    advance(op->size());
  }

  /// The digits from `end` on that `accepts` takes, single underscores between them passed over.
  template <class Accepts>
  size_t digits_end(size_t end, Accepts accepts) const {
    while (end < source_.size() &&
           (accepts(source_[end]) ||
            (source_[end] == '_' && end > pos_ && end + 1 < source_.size() && accepts(source_[end + 1]))))
      ++end;
    return end;
  }

  void read_number() {
    if (source_[pos_] == '0' && pos_ + 2 < source_.size() && read_prefixed()) return;
    size_t end = digits_end(pos_, is_digit);
    const auto digit_at = [&](size_t at) { return at < source_.size() && is_digit(source_[at]); };
    const bool member = !tokens_.empty() && tokens_.back().is(".");  // a.0.1 are two indices
    bool floating = false;
    if (!member) {
      if (end < source_.size() && source_[end] == '.' && digit_at(end + 1)) {
        floating = true;
        end = digits_end(end + 1, is_digit);
      }
      if (end < source_.size() && (source_[end] | 0x20) == 'e') {
        const size_t digits = end + 1 + (sign_at(end + 1) != '\0');
        if (digit_at(digits)) {
          floating = true;
          end = digits_end(digits, is_digit);
        }
      }
    }
    std::string text = source_.substr(pos_, end - pos_);
    std::erase(text, '_');
    const bool zeros = text.find_first_not_of('0') == std::string::npos;
    if (!floating && text[0] == '0' && !zeros) {  // `00` then what follows, as jinja2 cuts it
      end = pos_ + source_.substr(pos_).find_first_not_of("0_");
      text.assign(1, '0');
    }
    add(Token::Type::number, "",
        floating ? Value(std::strtod(text.c_str(), nullptr)) : Value(Integer::from_digits(text)));
    advance(end - pos_);
  }

  /// 0x, 0o and 0b.
  bool read_prefixed() {
    const char kind = static_cast<char>(source_[pos_ + 1] | 0x20);
    const int base = kind == 'x' ? 16 : kind == 'o' ? 8 : kind == 'b' ? 2 : 0;
    if (base == 0) return false;
    const auto accepts = [base](char c) { return base == 16 ? is_hex(c) : c >= '0' && c < '0' + base; };
    const size_t end = digits_end(pos_ + 2, accepts);
    std::string digits = source_.substr(pos_ + 2, end - pos_ - 2);
    std::erase(digits, '_');
    if (digits.empty()) return false;
    add(Token::Type::number, "", Value(Integer::from_digits(digits, base)));
    advance(end - pos_);
    return true;
  }

  void read_string(char quote) {
    size_t end = pos_ + 1;
    while (end < source_.size() && source_[end] != quote) end += source_[end] == '\\' ? 2 : 1;
    if (end >= source_.size()) fail(fmt::format("unexpected char {}", shown_text(std::string(1, quote))));
    add(Token::Type::string, unescaped(std::string_view(source_).substr(pos_ + 1, end - pos_ - 1)));
    advance(end + 1 - pos_);
  }

  /// Python's escapes; what is none keeps its backslash.
  std::string unescaped(std::string_view text) const {
    std::string out;
    for (size_t i = 0; i < text.size(); ++i) {
      if (text[i] != '\\') {
        out += text[i];
        continue;
      }
      const char c = text[++i];  // a string does not end in a lone backslash
      static constexpr std::string_view kFrom = "\\'\"abfnrtv", kTo = "\\'\"\a\b\f\n\r\t\v";
      if (const size_t at = kFrom.find(c); at != std::string_view::npos)
        out += kTo[at];
      else if (c >= '0' && c <= '7')
        append_octal(text, i, out);
      else if (c == 'x' || c == 'u' || c == 'U')
        append_hex(text, i, out);
      else if (c == 'N')
        fail("\\N{...} in a string is not supported; give the character itself");
      else if (c != '\n')
        (out += '\\') += c;
    }
    return out;
  }

  static void append_octal(std::string_view text, size_t& i, std::string& out) {
    char32_t code = 0;
    const size_t end = std::min(i + 3, text.size());
    while (i < end && text[i] >= '0' && text[i] <= '7')
      code = code * 8 + static_cast<char32_t>(text[i++] - '0');
    --i;
    append_utf8(code, out);
  }

  void append_hex(std::string_view text, size_t& i, std::string& out) const {
    const size_t digits = text[i] == 'x' ? 2 : text[i] == 'u' ? 4 : 8;
    const std::string hex(text.substr(i + 1, digits));
    if (hex.size() < digits || !std::all_of(hex.begin(), hex.end(), is_hex))
      fail(fmt::format("truncated \\{} escape", text[i]));
    const auto code = static_cast<char32_t>(std::strtoul(hex.c_str(), nullptr, 16));
    if (code > 0x10FFFF || (code >= 0xD800 && code < 0xE000))
      fail(fmt::format("\\{}{} is no character", text[i], hex));
    append_utf8(code, out);
    i += digits;
  }

  std::string source_;
  size_t pos_ = 0;
  int line_ = 1;
  bool line_starting_ = true;
  std::vector<Token> tokens_;
};

}  // namespace

std::string Token::description() const {
  switch (type) {
    case Type::data:
      return "template data / text";
    case Type::variable_begin:
      return "begin of print statement";
    case Type::variable_end:
      return "end of print statement";
    case Type::block_begin:
      return "begin of statement block";
    case Type::block_end:
      return "end of statement block";
    case Type::string:
    case Type::name:
    case Type::op:
      return text;
    case Type::number:
      return text_of(number);
    case Type::end:
      return "end of template";
  }
  return "?";
}

std::vector<Token> tokenize(std::string_view source) { return Lexer(source).run(); }

}  // namespace moerun::jinja
