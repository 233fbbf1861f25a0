#include "text/jinja/text.h"

#include <utf8proc.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>

#include "text/unicode.h"

namespace moerun::jinja {
namespace {

/// Python's str.isprintable() of a character.
bool is_printable(char32_t c) {
  if (c == ' ') return true;
  switch (utf8proc_category(static_cast<utf8proc_int32_t>(c))) {
    case UTF8PROC_CATEGORY_CC:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_CS:
    case UTF8PROC_CATEGORY_CO:
    case UTF8PROC_CATEGORY_CN:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP:
    case UTF8PROC_CATEGORY_ZS:
      return false;
    default:
      return true;
  }
}

void append_escaped(char32_t c, char quote, std::string_view bytes, std::string& out) {
  if (c == static_cast<char32_t>(quote) || c == '\\')
    (out += '\\') += static_cast<char>(c);
  else if (c == '\n')
    out += "\\n";
  else if (c == '\r')
    out += "\\r";
  else if (c == '\t')
    out += "\\t";
  else if (is_printable(c))
    out += bytes;
  else if (c < 0x100)
    out += fmt::format("\\x{:02x}", static_cast<uint32_t>(c));
  else
    out += c < 0x10000 ? fmt::format("\\u{:04x}", static_cast<uint32_t>(c))
                       : fmt::format("\\U{:08x}", static_cast<uint32_t>(c));
}

void append_repr(const Value& value, std::string& out);

void append_items(const std::vector<Value>& items, std::string& out) {
  std::string_view separator;
  for (const Value& item : items) {
    out += separator;
    append_repr(item, out);
    separator = ", ";
    if (out.size() > kMaxOutputBytes) throw TemplateError("a text is too long", TemplateError::Kind::limit);
  }
}

void append_dict(const Dict& dict, std::string& out) {
  out += '{';
  std::string_view separator;
  for (const auto& [key, member] : dict.entries()) {
    out += separator;
    append_repr(key, out);
    out += ": ";
    append_repr(member, out);
    separator = ", ";
    if (out.size() > kMaxOutputBytes) throw TemplateError("a text is too long", TemplateError::Kind::limit);
  }
  out += '}';
}

void append_sequence(const Sequence& sequence, std::string& out) {
  switch (sequence.kind) {
    case Sequence::Kind::range:
      out += sequence.label;
      return;
    case Sequence::Kind::generator:
      out += "<generator object>";
      return;
    case Sequence::Kind::tuple:
      out += '(';
      append_items(sequence.items, out);
      out += sequence.items.size() == 1 ? ",)" : ")";
      return;
    case Sequence::Kind::list:
      out += '[';
      append_items(sequence.items, out);
      out += ']';
      return;
    case Sequence::Kind::keys:
      out += "dict_keys([";
      break;
    case Sequence::Kind::values:
      out += "dict_values([";
      break;
    case Sequence::Kind::items:
      out += "dict_items([";
      break;
  }
  append_items(sequence.items, out);
  out += "])";
}

void append_repr(const Value& value, std::string& out) {
  if (const String* string = value.string())
    out += string->markup ? "Markup(" + shown_text(string->text) + ")" : shown_text(string->text);
  else if (const Sequence* sequence = value.sequence())
    append_sequence(*sequence, out);
  else if (const Dict* dict = value.dict())
    append_dict(*dict, out);
  else if (value.undefined())
    out += "Undefined";
  else
    out += text_of(value);
}

}  // namespace

std::string text_of(const Value& value) {
  if (value.is_none()) return "None";
  if (const bool* boolean = value.boolean()) return *boolean ? "True" : "False";
  if (const Integer* integer = value.integer()) return integer->text();
  if (const double* floating = value.floating()) return float_text(*floating);
  if (const String* string = value.string()) return string->text;
  if (value.undefined()) return "";
  if (const Object* object = value.object()) return object->text();
  return repr(value);
}

std::string repr(const Value& value) {
  std::string out;
  append_repr(value, out);
  return out;
}

std::string shown_text(std::string_view text) {
  const bool has_single = text.find('\'') != std::string_view::npos;
  const char quote = has_single && text.find('"') == std::string_view::npos ? '"' : '\'';
  std::string out(1, quote);
  for (const std::string_view character : characters(text))
    append_escaped(code_point_at(character, 0), quote, character, out);
  out += quote;
  return out;
}

std::string float_text(double value) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value > 0 ? "inf" : "-inf";
  std::array<char, 40> buffer;
  const double magnitude = std::abs(value);
  const bool scientific = magnitude != 0 && (magnitude < 1e-4 || magnitude >= 1e16);
  const auto format = scientific ? std::chars_format::scientific : std::chars_format::fixed;
  const auto result = std::to_chars(buffer.data(), buffer.data() + buffer.size(), value, format);
  std::string text(buffer.data(), result.ptr);
  if (!scientific && text.find('.') == std::string::npos) text += ".0";
  return text;
}

bool is_ascii(std::string_view text) {
  return std::all_of(text.begin(), text.end(), [](char c) { return static_cast<unsigned char>(c) < 0x80; });
}

size_t length(std::string_view text) {
  return static_cast<size_t>(
      std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xC0) != 0x80; }));
}

std::vector<std::string_view> characters(std::string_view text) {
  std::vector<std::string_view> out;
  out.reserve(text.size());
  for (size_t pos = 0; pos < text.size();) {
    const size_t bytes = utf8_unit_at(text, pos).length;
    out.push_back(text.substr(pos, bytes));
    pos += bytes;
  }
  return out;
}

size_t byte_of(std::string_view text, size_t index) {
  size_t pos = 0;
  for (; index > 0 && pos < text.size(); --index)
    for (++pos; pos < text.size() && (text[pos] & 0xC0) == 0x80;) ++pos;
  return pos;
}

void append_utf8(char32_t c, std::string& out) {
  std::array<utf8proc_uint8_t, 4> bytes{};
  const auto count = utf8proc_encode_char(static_cast<utf8proc_int32_t>(c), bytes.data());
  out.append(bytes.begin(), bytes.begin() + count);
}

bool is_space(char32_t c) { return is_white_space(c) || (c >= 0x1C && c <= 0x1F); }

std::string_view strip_left(std::string_view text) {
  while (!text.empty() && is_space(code_point_at(text, 0))) text.remove_prefix(utf8_unit_at(text, 0).length);
  return text;
}

std::string_view strip_right(std::string_view text) {
  while (!text.empty()) {
    size_t pos = text.size();
    if (!is_space(previous_code_point(text, pos))) break;
    text = text.substr(0, pos);
  }
  return text;
}

std::string escape(std::string_view text) {
  std::string out;
  for (const char c : text) switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '\'':
        out += "&#39;";
        break;
      case '"':
        out += "&#34;";
        break;
      default:
        out += c;
    }
  return out;
}

}  // namespace moerun::jinja
