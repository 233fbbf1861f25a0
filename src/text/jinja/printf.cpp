#include "text/jinja/printf.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>

#include "text/jinja/operators.h"
#include "text/jinja/text.h"
#include "text/unicode.h"

namespace moerun::jinja {
namespace {

constexpr int kMaxWidth = 100'000;

/// How one value is to be written; both kinds of format come down to it.
struct Spec {
  char32_t fill = ' ';
  char align = 0;   ///< < > ^ = or 0: the type's own
  char sign = '-';  ///< + - or a space
  bool alternate = false;
  bool thousands = false;
  int width = 0;
  int precision = -1;
  char type = 0;
};

std::string padded(const Spec& spec, std::string text, size_t sign_length, char own_align) {
  const size_t size = length(text);
  if (size >= static_cast<size_t>(spec.width)) return text;
  const size_t missing = static_cast<size_t>(spec.width) - size;
  const char align = spec.align ? spec.align : own_align;
  const size_t before = align == '<' ? 0 : align == '^' ? missing / 2 : missing;
  std::string fill;
  for (size_t i = 0; i < before; ++i) append_utf8(spec.fill, fill);
  if (align == '=') return text.insert(sign_length, fill);
  std::string out = fill + text;
  for (size_t i = before; i < missing; ++i) append_utf8(spec.fill, out);
  return out;
}

std::string with_thousands(std::string digits) {
  const size_t end = std::min(digits.find_first_not_of("0123456789"), digits.size());
  for (size_t at = end; at > 3;) digits.insert(at -= 3, ",");
  return digits;
}

std::string signed_text(const Spec& spec, bool negative, const std::string& prefix, std::string digits) {
  if (spec.thousands) digits = with_thousands(std::move(digits));
  std::string sign = negative ? "-" : spec.sign == '-' ? "" : std::string(1, spec.sign);
  sign += prefix;
  const size_t sign_length = sign.size();
  return padded(spec, sign + digits, sign_length, '>');
}

std::string integer_text(const Spec& spec, const Integer& value) {
  const int base = spec.type == 'x' || spec.type == 'X' ? 16
                   : spec.type == 'o'                   ? 8
                   : spec.type == 'b'                   ? 2
                                                        : 10;
  std::string digits = value.digits(base, spec.type == 'X');
  if (spec.precision > static_cast<int>(digits.size()))
    digits.insert(0, static_cast<size_t>(spec.precision) - digits.size(), '0');
  std::string prefix;
  if (spec.alternate && base != 10) prefix = {'0', spec.type};
  return signed_text(spec, value.is_negative(), prefix, std::move(digits));
}

std::string float_digits(const Spec& spec, double magnitude, char type) {
  if (!std::isfinite(magnitude)) {
    const bool upper = type == 'E' || type == 'F' || type == 'G';
    return std::isnan(magnitude) ? (upper ? "NAN" : "nan") : upper ? "INF" : "inf";
  }
  const int precision = spec.precision < 0 ? 6 : spec.precision;
  const std::string format = fmt::format("%{}.*{}", spec.alternate ? "#" : "", type);
  const int size = std::snprintf(nullptr, 0, format.c_str(), precision, magnitude);
  std::string out(static_cast<size_t>(size) + 1, '\0');
  std::snprintf(out.data(), out.size(), format.c_str(), precision, magnitude);
  out.pop_back();
  return out;
}

std::string float_formatted(const Spec& spec, double value) {
  const bool negative = std::signbit(value) && !std::isnan(value);
  const double magnitude = std::abs(value);
  std::string digits;
  if (spec.type == '%')
    digits = float_digits(spec, magnitude * 100, 'f') + "%";
  else if (spec.type == 0 && spec.precision < 0)
    digits = float_text(magnitude);
  else if (spec.type == 0 || spec.type == 'n')
    digits = float_digits(spec, magnitude, 'g');
  else
    digits = float_digits(spec, magnitude, spec.type);
  return signed_text(spec, negative, "", std::move(digits));
}

std::string first_characters(const std::string& text, int count) {
  return count < 0 ? text : text.substr(0, byte_of(text, static_cast<size_t>(count)));
}

int read_number(std::string_view text, size_t& pos) {
  int value = 0;
  while (pos < text.size() && text[pos] >= '0' && text[pos] <= '9') {
    value = value * 10 + (text[pos++] - '0');
    if (value > kMaxWidth) throw TemplateError("a format is too wide", TemplateError::Kind::limit);
  }
  return value;
}

Integer whole_of(const Value& value, char type) {
  require_defined(value);
  if (const auto integer = value.as_integer()) return *integer;
  if (const double* floating = value.floating();
      floating && std::isfinite(*floating) && type != 'x' && type != 'X' && type != 'o')
    return Integer::from_double(*floating);
  throw TemplateError(fmt::format("%{} format: {} is required, not {}", type,
                                  type == 'x' || type == 'X' || type == 'o' ? "an integer" : "a real number",
                                  type_name(value)));
}

double real_of(const Value& value) {
  require_defined(value);
  if (const double* floating = value.floating()) return *floating;
  if (const auto integer = value.as_integer()) return integer->to_double();
  throw TemplateError(fmt::format("must be real number, not {}", type_name(value)));
}

class PercentFormat {
 public:
  PercentFormat(Runtime& runtime, std::string_view format, const Value& values)
      : runtime_(runtime), format_(format), values_(values) {
    if (const Sequence* tuple = values.sequence(); tuple && tuple->kind == Sequence::Kind::tuple)
      several_ = tuple;
  }

  std::string run() {
    std::string out;
    while (pos_ < format_.size()) {
      if (format_[pos_] != '%') {
        out += format_[pos_++];
        continue;
      }
      ++pos_;
      out += field();
      if (out.size() > kMaxOutputBytes) throw TemplateError("a text is too long", TemplateError::Kind::limit);
    }
    // A single value that is a dict or a list may go unused, as in Python.
    const bool may_go_unused = values_.dict() || values_.sequence();
    if (several_ ? used_ < several_->items.size() : used_ == 0 && !may_go_unused)
      throw TemplateError("not all arguments converted during string formatting");
    return out;
  }

 private:
  char at() const {
    if (pos_ >= format_.size()) throw TemplateError("incomplete format");
    return format_[pos_];
  }

  const Value& next() {
    if (several_ ? used_ >= several_->items.size() : used_ > 0)
      throw TemplateError("not enough arguments for format string");
    return several_ ? several_->items[used_++] : (++used_, values_);
  }

  int width_or_star() {
    if (at() != '*') return read_number(format_, pos_);
    ++pos_;
    const auto integer = next().as_integer();
    if (!integer || !integer->fits() || std::abs(integer->small()) > kMaxWidth)
      throw TemplateError("* wants int");
    return static_cast<int>(integer->small());
  }

  std::string field() {
    Value keyed;
    bool has_key = false;
    if (at() == '(') {
      const size_t end = format_.find(')', pos_);
      if (end == std::string_view::npos) throw TemplateError("incomplete format key");
      if (!values_.dict()) throw TemplateError("format requires a mapping");
      const std::string_view key = format_.substr(pos_ + 1, end - pos_ - 1);
      const Value* found = values_.dict()->find(key);
      if (!found) throw TemplateError(shown_text(key));
      keyed = *found;
      has_key = true;
      pos_ = end + 1;
    }
    Spec spec;
    for (bool flags = true; flags;) switch (at()) {
        case '-':
          spec.align = '<';
          ++pos_;
          break;
        case '+':
        case ' ':
          if (spec.sign != '+') spec.sign = at();
          ++pos_;
          break;
        case '#':
          spec.alternate = true;
          ++pos_;
          break;
        case '0':
          spec.fill = '0';
          ++pos_;
          break;
        default:
          flags = false;
      }
    spec.width = width_or_star();
    if (spec.width < 0) {
      spec.align = '<';
      spec.width = -spec.width;
    }
    if (at() == '.') {
      ++pos_;
      spec.precision = std::max(0, width_or_star());
    }
    while (at() == 'h' || at() == 'l' || at() == 'L') ++pos_;
    spec.type = at();
    ++pos_;
    if (spec.type == '%') return "%";
    const Value& value = has_key ? keyed : next();
    return converted(spec, value);
  }

  std::string converted(Spec& spec, const Value& value) {
    if (spec.align == '<') spec.fill = ' ';
    switch (spec.type) {
      case 's':
      case 'r':
      case 'a': {
        spec.fill = ' ';
        const std::string text = spec.type == 's' ? text_of(value) : repr(value);
        runtime_.step(text.size() / kBytesAStep);
        return padded(spec, first_characters(text, spec.precision), 0, '>');
      }
      case 'c': {
        spec.fill = ' ';
        const String* string = value.string();
        const auto integer = value.as_integer();
        std::string text;
        if (string && length(string->text) == 1)
          text = string->text;
        else if (integer && integer->fits() && integer->small() >= 0 && integer->small() < 0xD800)
          append_utf8(static_cast<char32_t>(integer->small()), text);
        else
          throw TemplateError("%c requires int or char");
        return padded(spec, text, 0, '>');
      }
      case 'd':
      case 'i':
      case 'u':
      case 'x':
      case 'X':
      case 'o':
        if (spec.fill == '0' && !spec.align) spec.align = '=';
        return integer_text(spec, whole_of(value, spec.type));
      case 'e':
      case 'E':
      case 'f':
      case 'F':
      case 'g':
      case 'G':
        if (spec.fill == '0' && !spec.align) spec.align = '=';
        return float_formatted(spec, real_of(value));
      default:
        throw TemplateError(
            fmt::format("unsupported format character {}", shown_text(std::string(1, spec.type))));
    }
  }

  Runtime& runtime_;
  std::string_view format_;
  const Value& values_;
  const Sequence* several_ = nullptr;
  size_t pos_ = 0, used_ = 0;
};

Spec parse_spec(std::string_view text) {
  Spec spec;
  size_t pos = 0;
  const auto is_align = [](char c) { return c == '<' || c == '>' || c == '^' || c == '='; };
  const size_t first = text.empty() ? 0 : utf8_unit_at(text, 0).length;
  if (first < text.size() && is_align(text[first])) {
    spec.fill = code_point_at(text, 0);
    spec.align = text[first];
    pos = first + 1;
  } else if (!text.empty() && is_align(text[0])) {
    spec.align = text[0];
    pos = 1;
  }
  const auto skip = [&](char c) { return pos < text.size() && text[pos] == c && ++pos; };
  if (skip('+'))
    spec.sign = '+';
  else if (skip(' '))
    spec.sign = ' ';
  else
    skip('-');
  spec.alternate = skip('#');
  if (skip('0') && !spec.align) {
    spec.fill = '0';
    spec.align = '=';
  }
  spec.width = read_number(text, pos);
  spec.thousands = skip(',');
  if (skip('.')) spec.precision = read_number(text, pos);
  if (pos < text.size()) spec.type = text[pos++];
  if (pos < text.size()) throw TemplateError(fmt::format("Invalid format specifier '{}'", text));
  return spec;
}

std::string formatted(const Value& value, std::string_view text) {
  if (text.empty()) return text_of(value);
  Spec spec = parse_spec(text);
  const auto unknown = [&]() -> std::string {
    throw TemplateError(
        fmt::format("Unknown format code '{}' for object of type '{}'", spec.type, type_name(value)));
  };
  static constexpr std::string_view kFloatTypes = "eEfFgGn%", kIntegerTypes = "dxXobcn";
  if (const String* string = value.string()) {
    if (spec.type != 0 && spec.type != 's') return unknown();
    if (spec.align == '=') {
      if (spec.fill != '0') throw TemplateError("'=' alignment not allowed in string format specifier");
      spec.align = '<';
    }
    return padded(spec, first_characters(string->text, spec.precision), 0, '<');
  }
  if (const auto integer = value.as_integer();
      integer && (spec.type == 0 || kIntegerTypes.find(spec.type) != kIntegerTypes.npos)) {
    if (spec.precision >= 0) throw TemplateError("Precision not allowed in integer format specifier");
    return integer_text(spec, *integer);
  }
  if (value.is_number()) {
    if (spec.type != 0 && kFloatTypes.find(spec.type) == kFloatTypes.npos) return unknown();
    return float_formatted(spec, real_of(value));
  }
  throw TemplateError(fmt::format("unsupported format string passed to {}.__format__", type_name(value)));
}

class BraceFormat {
 public:
  BraceFormat(Runtime& runtime, std::string_view format, const Arguments& arguments)
      : runtime_(runtime), format_(format), arguments_(arguments) {}

  std::string run() {
    std::string out;
    for (size_t pos = 0; pos < format_.size();) {
      const char c = format_[pos++];
      const bool doubled = pos < format_.size() && format_[pos] == c;
      if ((c == '{' || c == '}') && doubled) {
        out += c;
        ++pos;
      } else if (c == '}') {
        throw TemplateError("Single '}' encountered in format string");
      } else if (c == '{') {
        const size_t end = field_end(pos);
        out += field(format_.substr(pos, end - pos));
        pos = end + 1;
      } else {
        out += c;
      }
      if (out.size() > kMaxOutputBytes) throw TemplateError("a text is too long", TemplateError::Kind::limit);
    }
    return out;
  }

 private:
  size_t field_end(size_t pos) const {
    for (int open = 1; pos < format_.size(); ++pos) {
      if (format_[pos] == '{') ++open;
      if (format_[pos] == '}' && --open == 0) return pos;
    }
    throw TemplateError("expected '}' before end of string");
  }

  std::string field(std::string_view text) {
    const size_t colon = std::min(text.find(':'), text.size());
    std::string_view name = text.substr(0, colon);
    const std::string_view spec = colon < text.size() ? text.substr(colon + 1) : "";
    char conversion = 0;
    if (const size_t mark = name.find('!'); mark != std::string_view::npos) {
      if (mark + 2 != name.size()) throw TemplateError("expected ':' after conversion specifier");
      conversion = name[mark + 1];
      name = name.substr(0, mark);
    }
    Value value = named(name);
    if (conversion == 's')
      value = runtime_.string(text_of(value));
    else if (conversion == 'r' || conversion == 'a')
      value = runtime_.string(repr(value));
    else if (conversion != 0)
      throw TemplateError(fmt::format("Unknown conversion specifier '{}'", conversion));
    std::string out =
        formatted(value, spec.find('{') == std::string_view::npos ? std::string(spec) : nested(spec));
    runtime_.step(1 + out.size() / kBytesAStep);
    return out;
  }

  /// Fields within a specification: the width or the precision.
  std::string nested(std::string_view spec) {
    std::string out;
    for (size_t pos = 0; pos < spec.size(); ++pos) {
      if (spec[pos] != '{') {
        out += spec[pos];
        continue;
      }
      const size_t end = spec.find('}', pos);
      if (end == std::string_view::npos) throw TemplateError("expected '}' before end of string");
      out += text_of(named(spec.substr(pos + 1, end - pos - 1)));
      pos = end;
    }
    return out;
  }

  Value named(std::string_view name) {
    const size_t end = std::min(name.find_first_of(".["), name.size());
    Value value = argument(name.substr(0, end));
    for (name = name.substr(end); !name.empty();) {
      const bool item = name[0] == '[';
      const size_t stop = item ? name.find(']') : std::min(name.find_first_of(".[", 1), name.size());
      if (stop == std::string_view::npos || stop <= 1)
        throw TemplateError("Empty attribute in format string");
      const std::string_view part = name.substr(1, stop - 1);
      if (!item) {
        value = get_attribute(runtime_, value, part);
      } else {
        const bool index = part.find_first_not_of("0123456789") == std::string_view::npos;
        value = get_item(runtime_, value,
                         index ? Value(Integer::from_digits(part)) : runtime_.string(std::string(part)));
      }
      name = name.substr(stop + item);
    }
    return value;
  }

  const Value& argument(std::string_view name) {
    if (name.find_first_not_of("0123456789") != std::string_view::npos) {
      for (const auto& [key, value] : arguments_.keyword)
        if (key == name) return value;
      throw TemplateError(shown_text(name));
    }
    const Integer index = name.empty() ? Integer(static_cast<int64_t>(next_++)) : Integer::from_digits(name);
    if (!index.fits() || static_cast<size_t>(index.small()) >= arguments_.positional.size())
      throw TemplateError(
          fmt::format("Replacement index {} out of range for positional args tuple", index.text()));
    return arguments_.positional[static_cast<size_t>(index.small())];
  }

  Runtime& runtime_;
  std::string_view format_;
  const Arguments& arguments_;
  size_t next_ = 0;
};

}  // namespace

Value percent_format(Runtime& runtime, const Value& format, const Value& values) {
  return runtime.string(PercentFormat(runtime, format.string()->text, values).run(), format.string()->markup);
}

Value brace_format(Runtime& runtime, const Value& format, const Arguments& arguments) {
  return runtime.string(BraceFormat(runtime, format.string()->text, arguments).run(),
                        format.string()->markup);
}

}  // namespace moerun::jinja
