#include "text/jinja/printf.h"

#include <algorithm>
#include <cstdlib>

#include "text/jinja/format_spec.h"
#include "text/jinja/operators.h"
#include "text/jinja/text.h"

namespace moerun::jinja {
namespace {

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
    FormatSpec spec;
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

  std::string converted(FormatSpec& spec, const Value& value) {
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
