#include <algorithm>
#include <cmath>

#include "text/jinja/case_mapping.h"
#include "text/jinja/filters.h"
#include "text/jinja/json.h"
#include "text/jinja/operators.h"
#include "text/jinja/printf.h"
#include "text/jinja/text.h"
#include "text/unicode.h"

// jinja2's filters of one text or number
// (https://jinja.palletsprojects.com/en/stable/templates/#list-of-builtin-filters).
namespace moerun::jinja {
namespace {

bool is_markup(const Value& value) { return value.string() && value.string()->markup; }

template <std::string (*kMap)(std::string_view)>
Value mapped(Runtime& runtime, const Value& input, const Arguments& arguments) {
  Parameters("this filter", arguments, {});
  return runtime.string(kMap(text_of(input)), is_markup(input));
}

/// jinja2's own title(): words begin behind white space, hyphens and opening brackets.
std::string titled(std::string_view text) {
  std::string out;
  bool first = true;
  for (size_t pos = 0; pos < text.size();) {
    const size_t bytes = utf8_unit_at(text, pos).length;
    const char32_t c = code_point_at(text, pos);
    const bool breaks = is_space(c) || (c < 0x80 && std::string_view("-({[<").find(static_cast<char>(c)) !=
                                                        std::string_view::npos);
    if (breaks) {
      out += text.substr(pos, bytes);
      pos += bytes;
      first = true;
      continue;
    }
    size_t end = pos + bytes;
    if (first) {
      out += upper(text.substr(pos, bytes));
    } else {
      while (end < text.size()) {
        const char32_t next = code_point_at(text, end);
        if (is_space(next) || (next < 0x80 && std::string_view("-({[<").find(static_cast<char>(next)) !=
                                                  std::string_view::npos))
          break;
        end += utf8_unit_at(text, end).length;
      }
      out += lower(text.substr(pos, end - pos));
    }
    first = false;
    pos = end;
  }
  return out;
}

Value trim(Runtime& runtime, const Value& input, const Arguments& arguments) {
  const Parameters given("trim", arguments, {"chars"});
  const std::string text = text_of(input);
  const std::string* set = given.given(0) ? &require_text(given[0], "strip arg") : nullptr;
  return runtime.string(std::string(stripped(text, set, true, true)), is_markup(input));
}

Value replace(Runtime& runtime, const Value& input, const Arguments& arguments) {
  const Parameters given("replace", arguments, {"old", "new", "count"}, 2);
  const int64_t most = given.given(2) ? require_integer(given[2]) : -1;
  return runtime.string(replaced(runtime, text_of(input), given.text(0, ""), given.text(1, ""), most));
}

Value center(Runtime& runtime, const Value& input, const Arguments& arguments) {
  const Parameters given("center", arguments, {"width"});
  const std::string text = text_of(input);
  const auto size = static_cast<int64_t>(length(text));
  const int64_t width = std::min<int64_t>(given.integer(0, 80), kMaxOutputBytes);
  const int64_t missing = std::max<int64_t>(0, width - size);
  const int64_t before = missing / 2 + (missing & width & 1);
  return runtime.string(std::string(static_cast<size_t>(before), ' ') + text +
                        std::string(static_cast<size_t>(missing - before), ' '));
}

Value indent(Runtime& runtime, const Value& input, const Arguments& arguments) {
  const Parameters given("indent", arguments, {"width", "first", "blank"});
  const std::string text = require_text(input, "what is indented") + "\n";
  std::string by(4, ' ');
  if (given.find(0))
    by =
        given[0].string()
            ? given[0].string()->text
            : std::string(static_cast<size_t>(std::clamp<int64_t>(require_integer(given[0]), 0, 10000)), ' ');
  const bool blank = given.flag(2, false);
  std::string out;
  bool first = true;
  for (const std::string_view line : split_lines(text, false)) {
    if (!first) out += '\n';
    if (first ? given.flag(1, false) : blank || !line.empty()) out += by;
    out += line;
    first = false;
    if (out.size() > kMaxOutputBytes) throw TemplateError("a text is too long", TemplateError::Kind::limit);
  }
  return runtime.string(std::move(out), is_markup(input));
}

Value truncate(Runtime& runtime, const Value& input, const Arguments& arguments) {
  const Parameters given("truncate", arguments, {"length", "killwords", "end", "leeway"});
  const std::string end = given.text(2, "...");
  const int64_t most = given.integer(0, 255), leeway = given.given(3) ? require_integer(given[3]) : 5;
  const auto end_length = static_cast<int64_t>(length(end));
  if (most < end_length) throw TemplateError(fmt::format("expected length >= {}, got {}", end_length, most));
  if (leeway < 0) throw TemplateError(fmt::format("expected leeway >= 0, got {}", leeway));
  const auto size = length_of(input);
  if (size && static_cast<int64_t>(*size) <= most + leeway) return input;
  const std::string& text = require_text(input, "what is truncated");
  std::string kept = text.substr(0, byte_of(text, static_cast<size_t>(most - end_length)));
  if (!given.flag(1, false)) kept = kept.substr(0, kept.rfind(' '));
  return runtime.string(kept + end);
}

Value word_count(Runtime&, const Value& input, const Arguments& arguments) {
  Parameters("wordcount", arguments, {});
  const std::string text = text_of(input);
  int64_t count = 0;
  bool within = false;
  for (size_t pos = 0; pos < text.size(); pos += utf8_unit_at(text, pos).length) {
    const char32_t c = code_point_at(text, pos);
    const bool word = c == '_' || is_alpha(c) || is_numeric(c);
    count += word && !within;
    within = word;
  }
  return Value(count);
}

Value escaped(Runtime& runtime, const Value& input, const Arguments& arguments) {
  Parameters("escape", arguments, {});
  return is_markup(input) ? input : runtime.string(escape(text_of(input)), true);
}

Value force_escaped(Runtime& runtime, const Value& input, const Arguments& arguments) {
  Parameters("forceescape", arguments, {});
  return runtime.string(escape(text_of(input)), true);
}

Value safe(Runtime& runtime, const Value& input, const Arguments& arguments) {
  Parameters("safe", arguments, {});
  return runtime.string(text_of(input), true);
}

Value to_string(Runtime& runtime, const Value& input, const Arguments& arguments) {
  Parameters("string", arguments, {});
  return input.string() ? input : runtime.string(text_of(input));
}

Value to_json_filter(Runtime& runtime, const Value& input, const Arguments& arguments) {
  const Parameters given("tojson", arguments, {"ensure_ascii", "indent", "separators", "sort_keys"});
  JsonStyle style;
  style.ensure_ascii = given.flag(0, false);
  style.sort_keys = given.flag(3, false);
  if (given.given(1)) {
    style.indent =
        given[1].string()
            ? given[1].string()->text
            : std::string(static_cast<size_t>(std::clamp<int64_t>(require_integer(given[1]), 0, 1000)), ' ');
    style.item_separator = ",";
  }
  if (given.given(2)) {
    const std::vector<Value> both = iterate(runtime, given[2]);
    if (both.size() != 2) throw TemplateError("tojson() takes two separators");
    style.item_separator = require_text(both[0], "a separator");
    style.key_separator = require_text(both[1], "a separator");
  }
  return runtime.string(to_json(runtime, input, style));
}

Value format(Runtime& runtime, const Value& input, const Arguments& arguments) {
  if (!arguments.positional.empty() && !arguments.keyword.empty())
    throw TemplateError("can't handle positional and keyword arguments at the same time");
  const Value text = runtime.string(text_of(input));
  if (arguments.keyword.empty()) return percent_format(runtime, text, runtime.tuple(arguments.positional));
  Ref<Dict> names = runtime.new_dict();
  for (const auto& [name, value] : arguments.keyword) names->set(runtime.string(name), value);
  return percent_format(runtime, text, runtime.of_dict(std::move(names)));
}

std::string quoted(const Value& value, bool query) {
  std::string out;
  const std::string text = text_of(value);
  for (const char c : text) {
    const bool plain = (c >= '0' && c <= '9') || ((c | 0x20) >= 'a' && (c | 0x20) <= 'z') || c == '_' ||
                       c == '.' || c == '-' || c == '~' || (c == '/' && !query);
    if (plain)
      out += c;
    else if (c == ' ' && query)
      out += '+';
    else
      out += fmt::format("%{:02X}", static_cast<unsigned char>(c));
  }
  return out;
}

Value url_encode(Runtime& runtime, const Value& input, const Arguments& arguments) {
  Parameters("urlencode", arguments, {});
  if (input.string() || (!input.dict() && !input.sequence())) return runtime.string(quoted(input, false));
  std::string out;
  const auto append = [&](const Value& key, const Value& value) {
    if (!out.empty()) out += '&';
    out += quoted(key, true) + "=" + quoted(value, true);
  };
  if (const Dict* dict = input.dict()) {
    for (const auto& [key, value] : dict->entries()) append(key, value);
  } else {
    for (const Value& pair : iterate(runtime, input)) {
      const std::vector<Value> both = iterate(runtime, pair);
      if (both.size() != 2) throw TemplateError("urlencode() takes pairs of a key and a value");
      append(both[0], both[1]);
    }
  }
  return runtime.string(std::move(out));
}

Value absolute(Runtime&, const Value& input, const Arguments& arguments) {
  Parameters("abs", arguments, {});
  require_defined(input);
  if (const auto integer = input.as_integer()) return Value(integer->is_negative() ? -*integer : *integer);
  if (const double* floating = input.floating()) return Value(std::abs(*floating));
  throw TemplateError(fmt::format("bad operand type for abs(): '{}'", type_name(input)));
}

Value to_integer(Runtime&, const Value& input, const Arguments& arguments) {
  const Parameters given("int", arguments, {"default", "base"});
  require_defined(input);
  const Value otherwise = given.find(0) ? given[0] : Value(int64_t{0});
  if (const auto integer = input.as_integer()) return Value(*integer);
  std::optional<double> number;
  if (const double* floating = input.floating()) number = *floating;
  if (const String* string = input.string()) {
    if (const auto whole = parse_integer(string->text, given.integer(1, 10))) return Value(*whole);
    number = parse_float(string->text);
  }
  return number && std::isfinite(*number) ? Value(Integer::from_double(*number)) : otherwise;
}

Value to_float(Runtime&, const Value& input, const Arguments& arguments) {
  const Parameters given("float", arguments, {"default"});
  require_defined(input);
  if (const auto integer = input.as_integer()) return Value(integer->to_double());
  if (input.floating()) return input;
  if (const String* string = input.string())
    if (const auto number = parse_float(string->text)) return Value(*number);
  return given.find(0) ? given[0] : Value(0.0);
}

/// Python's round(): to the nearest decimal, exactly, halves to even.
double rounded(double value, int64_t digits) {
  if (!std::isfinite(value) || digits > 300) return value;
  if (digits >= 0) return std::strtod(fmt::format("{:.{}f}", value, digits).c_str(), nullptr);
  if (digits < -308) return std::copysign(0.0, value);
  const double unit = std::pow(10.0, static_cast<double>(-digits));
  return std::nearbyint(value / unit) * unit;
}

Value round_number(Runtime& runtime, const Value& input, const Arguments& arguments) {
  const Parameters given("round", arguments, {"precision", "method"});
  const int64_t precision = given.integer(0, 0);
  const std::string method = given.text(1, "common");
  if (method != "common" && method != "ceil" && method != "floor")
    throw TemplateError("method must be common, ceil or floor");
  require_defined(input);
  if (!input.is_number())
    throw TemplateError(fmt::format("type {} doesn't define __round__ method", type_name(input)));
  const auto integer = input.as_integer();
  if (method == "common") {
    if (!integer) return Value(rounded(*input.floating(), precision));
    if (precision >= 0) return Value(*integer);
    const Value unit(Integer::power(Integer(10), Integer(-precision)));
    const Integer half = Integer::floor_divide(*unit.integer(), Integer(2));
    Integer down = Integer::floor_divide(*integer, *unit.integer());
    const Integer rest = Integer::modulo(*integer, *unit.integer());
    const bool odd = !Integer::modulo(down, Integer(2)).is_zero();
    if (rest > half || (rest == half && odd)) down = down + Integer(1);
    return Value(down * *unit.integer());
  }
  const double unit = std::pow(10.0, static_cast<double>(precision));
  const double scaled = (integer ? integer->to_double() : *input.floating()) * unit;
  if (!std::isfinite(scaled)) throw TemplateError("cannot convert float infinity or NaN to integer");
  static_cast<void>(runtime);
  return Value((method == "ceil" ? std::ceil(scaled) : std::floor(scaled)) / unit);
}

/// Filters of jinja2 that this program leaves out.
Value unsupported(Runtime&, const Value&, const Arguments&) {
  throw TemplateError(
      "this filter of jinja2 is not supported: filesizeformat, pprint, random, striptags, urlize, "
      "wordwrap and xmlattr are not");
}

constexpr Named<FilterFunction> kFilters[] = {
    {"abs", absolute},
    {"capitalize", mapped<capitalize>},
    {"center", center},
    {"e", escaped},
    {"escape", escaped},
    {"filesizeformat", unsupported},
    {"float", to_float},
    {"forceescape", force_escaped},
    {"format", format},
    {"indent", indent},
    {"int", to_integer},
    {"lower", mapped<lower>},
    {"pprint", unsupported},
    {"random", unsupported},
    {"replace", replace},
    {"round", round_number},
    {"safe", safe},
    {"string", to_string},
    {"striptags", unsupported},
    {"title", mapped<titled>},
    {"tojson", to_json_filter},
    {"trim", trim},
    {"truncate", truncate},
    {"upper", mapped<upper>},
    {"urlencode", url_encode},
    {"urlize", unsupported},
    {"wordcount", word_count},
    {"wordwrap", unsupported},
    {"xmlattr", unsupported},
};

}  // namespace

FilterFunction find_text_filter(std::string_view name) { return find_in(kFilters, name); }

}  // namespace moerun::jinja
