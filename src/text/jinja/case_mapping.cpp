#include "text/jinja/case_mapping.h"

#include <utf8proc.h>

#include <algorithm>
#include <cstdlib>
#include <memory>
#include <new>

#include "text/jinja/text.h"
#include "text/unicode.h"

namespace moerun::jinja {
namespace {

/// Characters whose upper or title case is several (Unicode's SpecialCasing.txt, unconditional).
struct SpecialCase {
  char32_t c;
  std::u32string_view upper, title;
};
constexpr SpecialCase kSpecialCases[] = {{0x00df, U"SS", U"Ss"},
                                         {0x0149, U"\u02bcN", U"\u02bcN"},
                                         {0x01f0, U"J\u030c", U"J\u030c"},
                                         {0x0390, U"\u0399\u0308\u0301", U"\u0399\u0308\u0301"},
                                         {0x03b0, U"\u03a5\u0308\u0301", U"\u03a5\u0308\u0301"},
                                         {0x0587, U"\u0535\u0552", U"\u0535\u0582"},
                                         {0x1e96, U"H\u0331", U"H\u0331"},
                                         {0x1e97, U"T\u0308", U"T\u0308"},
                                         {0x1e98, U"W\u030a", U"W\u030a"},
                                         {0x1e99, U"Y\u030a", U"Y\u030a"},
                                         {0x1e9a, U"A\u02be", U"A\u02be"},
                                         {0x1f50, U"\u03a5\u0313", U"\u03a5\u0313"},
                                         {0x1f52, U"\u03a5\u0313\u0300", U"\u03a5\u0313\u0300"},
                                         {0x1f54, U"\u03a5\u0313\u0301", U"\u03a5\u0313\u0301"},
                                         {0x1f56, U"\u03a5\u0313\u0342", U"\u03a5\u0313\u0342"},
                                         {0x1f80, U"\u1f08\u0399", U"\u1f88"},
                                         {0x1f81, U"\u1f09\u0399", U"\u1f89"},
                                         {0x1f82, U"\u1f0a\u0399", U"\u1f8a"},
                                         {0x1f83, U"\u1f0b\u0399", U"\u1f8b"},
                                         {0x1f84, U"\u1f0c\u0399", U"\u1f8c"},
                                         {0x1f85, U"\u1f0d\u0399", U"\u1f8d"},
                                         {0x1f86, U"\u1f0e\u0399", U"\u1f8e"},
                                         {0x1f87, U"\u1f0f\u0399", U"\u1f8f"},
                                         {0x1f88, U"\u1f08\u0399", U"\u1f88"},
                                         {0x1f89, U"\u1f09\u0399", U"\u1f89"},
                                         {0x1f8a, U"\u1f0a\u0399", U"\u1f8a"},
                                         {0x1f8b, U"\u1f0b\u0399", U"\u1f8b"},
                                         {0x1f8c, U"\u1f0c\u0399", U"\u1f8c"},
                                         {0x1f8d, U"\u1f0d\u0399", U"\u1f8d"},
                                         {0x1f8e, U"\u1f0e\u0399", U"\u1f8e"},
                                         {0x1f8f, U"\u1f0f\u0399", U"\u1f8f"},
                                         {0x1f90, U"\u1f28\u0399", U"\u1f98"},
                                         {0x1f91, U"\u1f29\u0399", U"\u1f99"},
                                         {0x1f92, U"\u1f2a\u0399", U"\u1f9a"},
                                         {0x1f93, U"\u1f2b\u0399", U"\u1f9b"},
                                         {0x1f94, U"\u1f2c\u0399", U"\u1f9c"},
                                         {0x1f95, U"\u1f2d\u0399", U"\u1f9d"},
                                         {0x1f96, U"\u1f2e\u0399", U"\u1f9e"},
                                         {0x1f97, U"\u1f2f\u0399", U"\u1f9f"},
                                         {0x1f98, U"\u1f28\u0399", U"\u1f98"},
                                         {0x1f99, U"\u1f29\u0399", U"\u1f99"},
                                         {0x1f9a, U"\u1f2a\u0399", U"\u1f9a"},
                                         {0x1f9b, U"\u1f2b\u0399", U"\u1f9b"},
                                         {0x1f9c, U"\u1f2c\u0399", U"\u1f9c"},
                                         {0x1f9d, U"\u1f2d\u0399", U"\u1f9d"},
                                         {0x1f9e, U"\u1f2e\u0399", U"\u1f9e"},
                                         {0x1f9f, U"\u1f2f\u0399", U"\u1f9f"},
                                         {0x1fa0, U"\u1f68\u0399", U"\u1fa8"},
                                         {0x1fa1, U"\u1f69\u0399", U"\u1fa9"},
                                         {0x1fa2, U"\u1f6a\u0399", U"\u1faa"},
                                         {0x1fa3, U"\u1f6b\u0399", U"\u1fab"},
                                         {0x1fa4, U"\u1f6c\u0399", U"\u1fac"},
                                         {0x1fa5, U"\u1f6d\u0399", U"\u1fad"},
                                         {0x1fa6, U"\u1f6e\u0399", U"\u1fae"},
                                         {0x1fa7, U"\u1f6f\u0399", U"\u1faf"},
                                         {0x1fa8, U"\u1f68\u0399", U"\u1fa8"},
                                         {0x1fa9, U"\u1f69\u0399", U"\u1fa9"},
                                         {0x1faa, U"\u1f6a\u0399", U"\u1faa"},
                                         {0x1fab, U"\u1f6b\u0399", U"\u1fab"},
                                         {0x1fac, U"\u1f6c\u0399", U"\u1fac"},
                                         {0x1fad, U"\u1f6d\u0399", U"\u1fad"},
                                         {0x1fae, U"\u1f6e\u0399", U"\u1fae"},
                                         {0x1faf, U"\u1f6f\u0399", U"\u1faf"},
                                         {0x1fb2, U"\u1fba\u0399", U"\u1fba\u0345"},
                                         {0x1fb3, U"\u0391\u0399", U"\u1fbc"},
                                         {0x1fb4, U"\u0386\u0399", U"\u0386\u0345"},
                                         {0x1fb6, U"\u0391\u0342", U"\u0391\u0342"},
                                         {0x1fb7, U"\u0391\u0342\u0399", U"\u0391\u0342\u0345"},
                                         {0x1fbc, U"\u0391\u0399", U"\u1fbc"},
                                         {0x1fc2, U"\u1fca\u0399", U"\u1fca\u0345"},
                                         {0x1fc3, U"\u0397\u0399", U"\u1fcc"},
                                         {0x1fc4, U"\u0389\u0399", U"\u0389\u0345"},
                                         {0x1fc6, U"\u0397\u0342", U"\u0397\u0342"},
                                         {0x1fc7, U"\u0397\u0342\u0399", U"\u0397\u0342\u0345"},
                                         {0x1fcc, U"\u0397\u0399", U"\u1fcc"},
                                         {0x1fd2, U"\u0399\u0308\u0300", U"\u0399\u0308\u0300"},
                                         {0x1fd3, U"\u0399\u0308\u0301", U"\u0399\u0308\u0301"},
                                         {0x1fd6, U"\u0399\u0342", U"\u0399\u0342"},
                                         {0x1fd7, U"\u0399\u0308\u0342", U"\u0399\u0308\u0342"},
                                         {0x1fe2, U"\u03a5\u0308\u0300", U"\u03a5\u0308\u0300"},
                                         {0x1fe3, U"\u03a5\u0308\u0301", U"\u03a5\u0308\u0301"},
                                         {0x1fe4, U"\u03a1\u0313", U"\u03a1\u0313"},
                                         {0x1fe6, U"\u03a5\u0342", U"\u03a5\u0342"},
                                         {0x1fe7, U"\u03a5\u0308\u0342", U"\u03a5\u0308\u0342"},
                                         {0x1ff2, U"\u1ffa\u0399", U"\u1ffa\u0345"},
                                         {0x1ff3, U"\u03a9\u0399", U"\u1ffc"},
                                         {0x1ff4, U"\u038f\u0399", U"\u038f\u0345"},
                                         {0x1ff6, U"\u03a9\u0342", U"\u03a9\u0342"},
                                         {0x1ff7, U"\u03a9\u0342\u0399", U"\u03a9\u0342\u0345"},
                                         {0x1ffc, U"\u03a9\u0399", U"\u1ffc"},
                                         {0xfb00, U"FF", U"Ff"},
                                         {0xfb01, U"FI", U"Fi"},
                                         {0xfb02, U"FL", U"Fl"},
                                         {0xfb03, U"FFI", U"Ffi"},
                                         {0xfb04, U"FFL", U"Ffl"},
                                         {0xfb05, U"ST", U"St"},
                                         {0xfb06, U"ST", U"St"},
                                         {0xfb13, U"\u0544\u0546", U"\u0544\u0576"},
                                         {0xfb14, U"\u0544\u0535", U"\u0544\u0565"},
                                         {0xfb15, U"\u0544\u053b", U"\u0544\u056b"},
                                         {0xfb16, U"\u054e\u0546", U"\u054e\u0576"},
                                         {0xfb17, U"\u0544\u053d", U"\u0544\u056d"}};

const SpecialCase* special_case(char32_t c) {
  const auto* found =
      std::lower_bound(std::begin(kSpecialCases), std::end(kSpecialCases), c,
                       [](const SpecialCase& entry, char32_t value) { return entry.c < value; });
  return found != std::end(kSpecialCases) && found->c == c ? found : nullptr;
}

utf8proc_int32_t code(char32_t c) { return static_cast<utf8proc_int32_t>(c); }

void append_upper(char32_t c, std::string& out) {
  if (const SpecialCase* special = special_case(c)) {
    for (const char32_t one : special->upper) append_utf8(one, out);
  } else {
    append_utf8(static_cast<char32_t>(utf8proc_toupper(code(c))), out);
  }
}

void append_title(char32_t c, std::string& out) {
  if (const SpecialCase* special = special_case(c)) {
    for (const char32_t one : special->title) append_utf8(one, out);
  } else {
    append_utf8(static_cast<char32_t>(utf8proc_totitle(code(c))), out);
  }
}

bool is_cased(char32_t c) { return is_lower(c) || is_upper(c) || is_title(c); }

bool is_case_ignorable(char32_t c) {
  switch (utf8proc_category(code(c))) {
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_SK:
      return true;
    default:
      return c == '\'' || c == '.' || c == ':' || c == 0xB7 || c == 0x2019 || c == 0x2018 || c == 0x2024 ||
             c == 0x2027 || c == 0x387 || c == 0x55F || c == 0x5F4;
  }
}

/// A sigma that ends a word: a cased letter before it and none behind it, case-ignorable ones passed over.
bool is_final_sigma(std::string_view text, size_t pos) {
  bool before = false;
  for (size_t at = pos; at > 0;) {
    const char32_t c = previous_code_point(text, at);
    if (is_case_ignorable(c)) continue;
    before = is_cased(c);
    break;
  }
  if (!before) return false;
  for (size_t at = pos + 2; at < text.size(); at += utf8_unit_at(text, at).length) {
    const char32_t c = code_point_at(text, at);
    if (!is_case_ignorable(c)) return !is_cased(c);
  }
  return true;
}

void append_lower(std::string_view text, size_t pos, char32_t c, std::string& out) {
  if (c == 0x130) {
    out += "i\xCC\x87";
  } else if (c == 0x3A3) {
    append_utf8(is_final_sigma(text, pos) ? 0x3C2 : 0x3C3, out);
  } else {
    append_utf8(static_cast<char32_t>(utf8proc_tolower(code(c))), out);
  }
}

template <class Each>
std::string mapped(std::string_view text, Each each) {
  std::string out;
  out.reserve(text.size());
  for (size_t pos = 0; pos < text.size(); pos += utf8_unit_at(text, pos).length)
    each(pos, code_point_at(text, pos), out);
  return out;
}

}  // namespace

std::string lower(std::string_view text) {
  return mapped(text, [&](size_t pos, char32_t c, std::string& out) { append_lower(text, pos, c, out); });
}

std::string upper(std::string_view text) {
  return mapped(text, [](size_t, char32_t c, std::string& out) { append_upper(c, out); });
}

std::string title(std::string_view text) {
  bool within = false;
  return mapped(text, [&](size_t pos, char32_t c, std::string& out) {
    if (within)
      append_lower(text, pos, c, out);
    else
      append_title(c, out);
    within = is_cased(c);
  });
}

std::string capitalize(std::string_view text) {
  return mapped(text, [&](size_t pos, char32_t c, std::string& out) {
    if (pos == 0)
      append_title(c, out);
    else
      append_lower(text, pos, c, out);
  });
}

std::string swapcase(std::string_view text) {
  return mapped(text, [&](size_t pos, char32_t c, std::string& out) {
    if (is_upper(c))
      append_lower(text, pos, c, out);
    else if (is_lower(c))
      append_upper(c, out);
    else
      append_utf8(c, out);
  });
}

std::string casefold(std::string_view text) {
  utf8proc_uint8_t* folded = nullptr;
  const auto size = utf8proc_map(reinterpret_cast<const utf8proc_uint8_t*>(text.data()),
                                 static_cast<utf8proc_ssize_t>(text.size()), &folded, UTF8PROC_CASEFOLD);
  if (size < 0) throw std::bad_alloc();  // the text is UTF-8
  const std::unique_ptr<utf8proc_uint8_t, void (*)(void*)> owned(folded, std::free);
  return {reinterpret_cast<const char*>(folded), static_cast<size_t>(size)};
}

bool is_alpha(char32_t c) {
  const auto category = utf8proc_category(code(c));
  return category >= UTF8PROC_CATEGORY_LU && category <= UTF8PROC_CATEGORY_LO;
}

bool is_decimal(char32_t c) { return utf8proc_category(code(c)) == UTF8PROC_CATEGORY_ND; }

bool is_digit_character(char32_t c) {
  const auto within = [c](char32_t first, char32_t last) { return c >= first && c <= last; };
  return is_decimal(c) || c == 0xB2 || c == 0xB3 || c == 0xB9 || c == 0x2070 || within(0x2074, 0x2079) ||
         within(0x2080, 0x2089) || within(0x2460, 0x2468) || within(0x2474, 0x247C) ||
         within(0x2488, 0x2490) || c == 0x24EA || within(0x24F5, 0x24FD) || c == 0x24FF ||
         within(0x2776, 0x277E) || within(0x2780, 0x2788) || within(0x278A, 0x2792) ||
         within(0x1369, 0x1371) || c == 0x19DA;
}

bool is_numeric(char32_t c) {
  const auto category = utf8proc_category(code(c));
  return category >= UTF8PROC_CATEGORY_ND && category <= UTF8PROC_CATEGORY_NO;
}

bool is_lower(char32_t c) { return utf8proc_islower(code(c)) != 0; }
bool is_upper(char32_t c) { return utf8proc_isupper(code(c)) != 0; }
bool is_title(char32_t c) { return utf8proc_category(code(c)) == UTF8PROC_CATEGORY_LT; }

}  // namespace moerun::jinja
