#include <algorithm>

#include "text/jinja/case_mapping.h"
#include "text/jinja/filters.h"
#include "text/jinja/operators.h"
#include "text/jinja/printf.h"
#include "text/jinja/text.h"
#include "text/unicode.h"

// Python's str methods (https://docs.python.org/3/library/stdtypes.html#string-methods). Positions count code
// points.
namespace moerun::jinja {
namespace {

const std::string& text(const Value& self) { return self.string()->text; }

Value like(Runtime& runtime, const Value& self, std::string_view text) {
  return runtime.string(std::string(text), self.string()->markup);
}

template <std::string (*kMap)(std::string_view)>
Value mapped(Runtime& runtime, const Value& self, const Arguments& arguments) {
  Parameters("this method", arguments, {});
  return like(runtime, self, kMap(text(self)));
}

/// Whether all characters hold, and there are any.
template <bool (*kHolds)(char32_t)>
Value all_hold(Runtime&, const Value& self, const Arguments& arguments) {
  Parameters("this method", arguments, {});
  const std::vector<std::string_view> all = characters(text(self));
  return Value(!all.empty() && std::all_of(all.begin(), all.end(), [](std::string_view character) {
    return kHolds(code_point_at(character, 0));
  }));
}

bool is_alphanumeric(char32_t c) { return is_alpha(c) || is_digit_character(c) || is_numeric(c); }

template <bool (*kWanted)(char32_t), bool (*kUnwanted)(char32_t)>
Value is_cased(Runtime&, const Value& self, const Arguments& arguments) {
  Parameters("this method", arguments, {});
  bool any = false;
  for (const std::string_view character : characters(text(self))) {
    const char32_t c = code_point_at(character, 0);
    if (kUnwanted(c) || is_title(c)) return Value(false);
    any |= kWanted(c);
  }
  return Value(any);
}

Value is_titled(Runtime&, const Value& self, const Arguments&) {
  bool any = false, within = false;
  for (const std::string_view character : characters(text(self))) {
    const char32_t c = code_point_at(character, 0);
    const bool begins = is_upper(c) || is_title(c), goes_on = is_lower(c);
    if ((begins && within) || (goes_on && !within)) return Value(false);
    within = begins || goes_on;
    any |= within;
  }
  return Value(any);
}

Value is_ascii_text(Runtime&, const Value& self, const Arguments&) { return Value(self.string()->ascii); }

Value is_printable_text(Runtime&, const Value& self, const Arguments&) {
  const std::string shown = shown_text(text(self));
  return Value(shown.find('\\') == std::string::npos ||
               shown_text(text(self)).size() ==
                   text(self).size() + 2 +
                       static_cast<size_t>(std::count(text(self).begin(), text(self).end(), '\\')));
}

Value is_identifier(Runtime&, const Value& self, const Arguments&) {
  bool first = true;
  for (const std::string_view character : characters(text(self))) {
    const char32_t c = code_point_at(character, 0);
    if (c != '_' && !is_alpha(c) && (first || !is_word(c))) return Value(false);
    first = false;
  }
  return Value(!first);
}

template <bool kLeft, bool kRight>
Value strip(Runtime& runtime, const Value& self, const Arguments& arguments) {
  const Parameters given("strip", arguments, {"chars"});
  const std::string* set = given.given(0) ? &require_text(given[0], "strip arg") : nullptr;
  return like(runtime, self, stripped(text(self), set, kLeft, kRight));
}

/// The part of the text that (start, end) of a method cut out, and the code points before it.
struct Range {
  std::string_view part;
  int64_t before = 0;
  bool valid = true;  ///< false: start is behind the end
};

Range range_of(const Value& self, const Parameters& given, size_t start_index) {
  const std::string& all = text(self);
  const auto size = static_cast<int64_t>(*length_of(self));
  const auto bound = [&](size_t index, int64_t otherwise) {
    if (!given.given(index)) return otherwise;
    const int64_t at = require_integer(given[index]);
    return at < 0 ? std::max<int64_t>(0, at + size) : at;
  };
  const int64_t start = bound(start_index, 0), end = std::min(bound(start_index + 1, size), size);
  if (start > end) return {{}, 0, false};
  const size_t first = byte_of(all, static_cast<size_t>(start));
  const std::string_view rest = std::string_view(all).substr(first);
  return {rest.substr(0, byte_of(rest, static_cast<size_t>(end - start))), start};
}

template <bool kAtStart>
Value has_affix(Runtime&, const Value& self, const Arguments& arguments) {
  const std::string_view name = kAtStart ? "startswith" : "endswith";
  const Parameters given(name, arguments, {"affix", "start", "end"}, 1);
  require_defined(given[0]);
  const Range range = range_of(self, given, 1);
  const auto holds = [&](const Value& affix) {
    if (!affix.string())
      throw TemplateError(
          fmt::format("{} first arg must be str or a tuple of str, not {}", name, type_name(affix)));
    return range.valid && (kAtStart ? range.part.starts_with(affix.string()->text)
                                    : range.part.ends_with(affix.string()->text));
  };
  const Sequence* several = given[0].sequence();
  if (several && several->kind == Sequence::Kind::tuple)
    return Value(std::any_of(several->items.begin(), several->items.end(), holds));
  return Value(holds(given[0]));
}

size_t find_last(Runtime& runtime, std::string_view part, std::string_view needle) {
  constexpr size_t kComparisonsAStep = 1024;  // of the worst case, which real texts are far from
  runtime.step(part.size() * std::min<size_t>(needle.size(), 1 << 20) / kComparisonsAStep);
  return part.rfind(needle);
}

template <bool kLast, bool kMust>
Value find(Runtime& runtime, const Value& self, const Arguments& arguments) {
  const Parameters given("find", arguments, {"sub", "start", "end"}, 1);
  const std::string& needle = require_text(given[0], "what is looked for");
  const Range range = range_of(self, given, 1);
  const size_t at = !range.valid ? std::string_view::npos
                    : kLast      ? find_last(runtime, range.part, needle)
                                 : find_text(range.part, needle);
  if (at != std::string_view::npos)
    return Value(range.before + static_cast<int64_t>(length(range.part.substr(0, at))));
  if (kMust) throw TemplateError("substring not found");
  return Value(int64_t{-1});
}

Value count(Runtime&, const Value& self, const Arguments& arguments) {
  const Parameters given("count", arguments, {"sub", "start", "end"}, 1);
  const std::string& needle = require_text(given[0], "what is counted");
  const Range range = range_of(self, given, 1);
  if (!range.valid) return Value(int64_t{0});
  if (needle.empty()) return Value(static_cast<int64_t>(length(range.part)) + 1);
  int64_t found = 0;
  for (size_t at = 0; (at = find_text(range.part, needle, at)) != std::string_view::npos; at += needle.size())
    ++found;
  return Value(found);
}

Value replace(Runtime& runtime, const Value& self, const Arguments& arguments) {
  const Parameters given("replace", arguments, {"old", "new", "count"}, 2);
  return like(runtime, self,
              replaced(runtime, text(self), require_text(given[0], "replace() argument 1"),
                       require_text(given[1], "replace() argument 2"), given.integer(2, -1)));
}

/// Pieces between white space; the rest unsplit after `most` cuts.
std::vector<std::string_view> split_words(std::string_view text, int64_t most, bool from_right) {
  std::vector<std::string_view> out;
  text = from_right ? strip_right(text) : strip_left(text);
  while (!text.empty()) {
    if (most >= 0 && static_cast<int64_t>(out.size()) == most) {
      out.push_back(from_right ? strip_left(text).empty() ? text : text : text);
      break;
    }
    size_t at = from_right ? text.size() : 0;
    if (from_right) {
      while (at > 0) {
        size_t before = at;
        if (is_space(previous_code_point(text, before))) break;
        at = before;
      }
      out.push_back(text.substr(at));
      text = strip_right(text.substr(0, at));
    } else {
      while (at < text.size() && !is_space(code_point_at(text, at))) at += utf8_unit_at(text, at).length;
      out.push_back(text.substr(0, at));
      text = strip_left(text.substr(at));
    }
  }
  if (from_right) std::reverse(out.begin(), out.end());
  return out;
}

template <bool kFromRight>
Value split(Runtime& runtime, const Value& self, const Arguments& arguments) {
  const Parameters given("split", arguments, {"sep", "maxsplit"});
  const int64_t most = given.integer(1, -1);
  std::vector<std::string_view> parts;
  std::string_view rest = text(self);
  if (!given.given(0)) {
    parts = split_words(rest, most, kFromRight);
  } else {
    const std::string& separator = require_text(given[0], "the separator");
    if (separator.empty()) throw TemplateError("empty separator");
    while (most < 0 || static_cast<int64_t>(parts.size()) < most) {
      const size_t at = kFromRight ? find_last(runtime, rest, separator) : find_text(rest, separator);
      if (at == std::string_view::npos) break;
      parts.push_back(kFromRight ? rest.substr(at + separator.size()) : rest.substr(0, at));
      rest = kFromRight ? rest.substr(0, at) : rest.substr(at + separator.size());
    }
    parts.push_back(rest);
    if (kFromRight) std::reverse(parts.begin(), parts.end());
  }
  std::vector<Value> out;
  out.reserve(parts.size());
  for (const std::string_view part : parts) out.push_back(like(runtime, self, part));
  return runtime.list(std::move(out));
}

template <bool kLast>
Value partition(Runtime& runtime, const Value& self, const Arguments& arguments) {
  const Parameters given("partition", arguments, {"sep"}, 1);
  const std::string& separator = require_text(given[0], "the separator");
  if (separator.empty()) throw TemplateError("empty separator");
  const std::string_view all = text(self);
  const size_t at = kLast ? find_last(runtime, all, separator) : find_text(all, separator);
  const Value none = like(runtime, self, "");
  if (at == std::string_view::npos)
    return runtime.tuple(kLast ? std::vector<Value>{none, none, self} : std::vector<Value>{self, none, none});
  return runtime.tuple({like(runtime, self, all.substr(0, at)), like(runtime, self, separator),
                        like(runtime, self, all.substr(at + separator.size()))});
}

Value split_lines_method(Runtime& runtime, const Value& self, const Arguments& arguments) {
  const Parameters given("splitlines", arguments, {"keepends"});
  std::vector<Value> out;
  for (const std::string_view line : split_lines(text(self), given.flag(0, false)))
    out.push_back(like(runtime, self, line));
  return runtime.list(std::move(out));
}

Value join(Runtime& runtime, const Value& self, const Arguments& arguments) {
  const Parameters given("join", arguments, {"iterable"}, 1);
  if (!given[0].string() && !given[0].sequence() && !given[0].dict() && !given[0].undefined())
    throw TemplateError("can only join an iterable");
  std::string out;
  size_t number = 0;
  for (const Value& item : iterate(runtime, given[0])) {
    if (!item.string())
      throw TemplateError(
          fmt::format("sequence item {}: expected str instance, {} found", number, type_name(item)));
    if (number++ > 0) out += text(self);
    out += item.string()->text;
    if (out.size() > kMaxOutputBytes) throw TemplateError("a text is too long", TemplateError::Kind::limit);
  }
  return like(runtime, self, out);
}

enum class Side { left, right, both };

template <Side kText>
Value justify(Runtime& runtime, const Value& self, const Arguments& arguments) {
  const Parameters given("justify", arguments, {"width", "fillchar"}, 1);
  const std::string fill = given.find(1) ? require_text(given[1], "the fill character") : " ";
  if (length(fill) != 1) throw TemplateError("The fill character must be exactly one character long");
  const int64_t width = std::min<int64_t>(require_integer(given[0]), kMaxOutputBytes / 4);
  const int64_t missing = std::max<int64_t>(0, width - static_cast<int64_t>(*length_of(self)));
  const int64_t before = kText == Side::left    ? 0
                         : kText == Side::right ? missing
                                                : missing / 2 + (missing & width & 1);
  std::string out;
  for (int64_t i = 0; i < before; ++i) out += fill;
  out += text(self);
  for (int64_t i = before; i < missing; ++i) out += fill;
  return like(runtime, self, out);
}

Value zfill(Runtime& runtime, const Value& self, const Arguments& arguments) {
  const Parameters given("zfill", arguments, {"width"}, 1);
  const int64_t width = std::min<int64_t>(require_integer(given[0]), kMaxOutputBytes / 4);
  const auto missing = std::max<int64_t>(0, width - static_cast<int64_t>(*length_of(self)));
  const std::string& all = text(self);
  const size_t sign = all.starts_with('-') || all.starts_with('+');
  return like(runtime, self,
              all.substr(0, sign) + std::string(static_cast<size_t>(missing), '0') + all.substr(sign));
}

Value expand_tabs(Runtime& runtime, const Value& self, const Arguments& arguments) {
  const Parameters given("expandtabs", arguments, {"tabsize"});
  const int64_t size = std::clamp<int64_t>(given.integer(0, 8), 0, 10'000);
  std::string out;
  int64_t column = 0;
  for (const std::string_view character : characters(text(self))) {
    if (character == "\t") {
      const int64_t spaces = size > 0 ? size - column % size : 0;
      out.append(static_cast<size_t>(spaces), ' ');
      column += spaces;
    } else {
      out += character;
      column = character == "\n" || character == "\r" ? 0 : column + 1;
    }
    if (out.size() > kMaxOutputBytes) throw TemplateError("a text is too long", TemplateError::Kind::limit);
  }
  return like(runtime, self, out);
}

template <bool kPrefix>
Value remove_affix(Runtime& runtime, const Value& self, const Arguments& arguments) {
  const Parameters given("removeprefix", arguments, {"affix"}, 1);
  const std::string& affix = require_text(given[0], "what is removed");
  std::string_view all = text(self);
  if (kPrefix && all.starts_with(affix)) all.remove_prefix(affix.size());
  if (!kPrefix && all.ends_with(affix)) all.remove_suffix(affix.size());
  return like(runtime, self, all);
}

Value format(Runtime& runtime, const Value& self, const Arguments& arguments) {
  return brace_format(runtime, self, arguments);
}

Value format_map(Runtime& runtime, const Value& self, const Arguments& arguments) {
  const Parameters given("format_map", arguments, {"mapping"}, 1);
  if (!given[0].dict()) throw TemplateError("format_map() takes a mapping");
  Arguments names;
  for (const auto& [key, value] : given[0].dict()->entries())
    if (key.string()) names.keyword.emplace_back(key.string()->text, value);
  return brace_format(runtime, self, names);
}

constexpr Named<MethodFunction> kMethods[] = {
    {"capitalize", mapped<capitalize>},
    {"casefold", mapped<casefold>},
    {"center", justify<Side::both>},
    {"count", count},
    {"endswith", has_affix<false>},
    {"expandtabs", expand_tabs},
    {"find", find<false, false>},
    {"format", format},
    {"format_map", format_map},
    {"index", find<false, true>},
    {"isalnum", all_hold<is_alphanumeric>},
    {"isalpha", all_hold<is_alpha>},
    {"isascii", is_ascii_text},
    {"isdecimal", all_hold<is_decimal>},
    {"isdigit", all_hold<is_digit_character>},
    {"isidentifier", is_identifier},
    {"islower", is_cased<is_lower, is_upper>},
    {"isnumeric", all_hold<is_numeric>},
    {"isprintable", is_printable_text},
    {"isspace", all_hold<is_space>},
    {"istitle", is_titled},
    {"isupper", is_cased<is_upper, is_lower>},
    {"join", join},
    {"ljust", justify<Side::left>},
    {"lower", mapped<lower>},
    {"lstrip", strip<true, false>},
    {"partition", partition<false>},
    {"removeprefix", remove_affix<true>},
    {"removesuffix", remove_affix<false>},
    {"replace", replace},
    {"rfind", find<true, false>},
    {"rindex", find<true, true>},
    {"rjust", justify<Side::right>},
    {"rpartition", partition<true>},
    {"rsplit", split<true>},
    {"rstrip", strip<false, true>},
    {"split", split<false>},
    {"splitlines", split_lines_method},
    {"startswith", has_affix<true>},
    {"strip", strip<true, true>},
    {"swapcase", mapped<swapcase>},
    {"title", mapped<title>},
    {"upper", mapped<upper>},
    {"zfill", zfill},
};
}  // namespace

MethodFunction find_string_method(std::string_view name) { return find_in(kMethods, name); }

}  // namespace moerun::jinja
