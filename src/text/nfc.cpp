#include "text/nfc.h"

#include <fmt/format.h>
#include <utf8proc.h>

#include <algorithm>
#include <array>
#include <vector>

#include "moerun/error.h"
#include "text/unicode.h"
#include "text/unicode_tables.h"

namespace moerun {
namespace {

/// The first code point that can change under NFC or take part in a composition with what stands before it.
constexpr char32_t kFirstComposing = 0x300;

int combining_class(utf8proc_int32_t c) { return utf8proc_get_property(c)->combining_class; }

/// Code points that utf8proc reorders, decomposes or composes, or a later one may, and `tokenizers` leaves
/// where they are: what came since Unicode 9, and what no Unicode has yet; and U+11A7, which utf8proc 2.8
/// takes for a trailing consonant and drops (it is the one before the first). What Unicode 9 has keeps its
/// normalization for ever, so the outcome is the same whatever utf8proc's version.
const CodePointSet& inert() {
  static const CodePointSet set = [] {
    const auto newer = unicode_tables::nfc_inert();
    std::vector<CodePointRange> ranges(newer.begin(), newer.end());
    ranges.push_back({0x11A7, 0x11A7});
    return CodePointSet(std::move(ranges)).united(*property_set("Cn"));
  }();
  return set;
}

/// Full canonical decomposition, marks not yet in canonical order.
std::vector<utf8proc_int32_t> decompose(std::string_view text) {
  std::vector<utf8proc_int32_t> out;
  out.reserve(text.size());
  for (size_t pos = 0; pos < text.size();) {
    const Utf8Unit unit = utf8_unit_at(text, pos);
    const auto c = static_cast<utf8proc_int32_t>(code_point_at(text, pos));
    pos += unit.length;
    std::array<utf8proc_int32_t, 8> parts;  // the longest canonical decomposition has 4 code points
    int boundary = 0;
    const auto n = utf8proc_decompose_char(c, parts.data(), parts.size(), UTF8PROC_DECOMPOSE, &boundary);
    if (n < 0 || n > static_cast<utf8proc_ssize_t>(parts.size()))
      throw Error(fmt::format("utf8proc cannot decompose U+{:04X}", c));
    out.insert(out.end(), parts.begin(), parts.begin() + n);
  }
  return out;
}

/// Canonical ordering. utf8proc's own is an exchange sort, quadratic on a long run of marks.
void order_marks(std::vector<utf8proc_int32_t>& code_points) {
  for (auto it = code_points.begin(); it != code_points.end();) {
    if (combining_class(*it) == 0) {
      ++it;
      continue;
    }
    const auto end = std::find_if(it, code_points.end(), [](auto c) { return combining_class(c) == 0; });
    std::stable_sort(it, end, [](auto a, auto b) { return combining_class(a) < combining_class(b); });
    it = end;
  }
}

void append_composed(std::string_view text, std::string& out) {
  std::vector<utf8proc_int32_t> code_points = decompose(text);
  order_marks(code_points);
  const auto length =
      utf8proc_normalize_utf32(code_points.data(), static_cast<utf8proc_ssize_t>(code_points.size()),
                               static_cast<utf8proc_option_t>(UTF8PROC_COMPOSE | UTF8PROC_STABLE));
  if (length < 0) throw Error(fmt::format("utf8proc: {}", utf8proc_errmsg(length)));
  for (utf8proc_ssize_t i = 0; i < length; ++i) {
    std::array<utf8proc_uint8_t, 4> bytes;
    const auto n = utf8proc_encode_char(code_points[static_cast<size_t>(i)], bytes.data());
    out.append(reinterpret_cast<const char*>(bytes.data()), static_cast<size_t>(n));
  }
}

}  // namespace

std::string nfc(std::string_view text) {
  // A lead byte of 0xCC or more starts U+0300 or above; without one, nothing can change.
  static_assert(kFirstComposing == (0xCC & 0x1F) << 6);
  if (std::all_of(text.begin(), text.end(), [](char c) { return static_cast<uint8_t>(c) < 0xCC; }))
    return std::string(text);

  const CodePointSet& inert_set = inert();
  std::string out;
  out.reserve(text.size());
  size_t begin = 0;  // of what is not yet written
  for (size_t pos = 0; pos < text.size();) {
    const size_t length = utf8_unit_at(text, pos).length;
    if (inert_set.contains(code_point_at(text, pos))) {
      append_composed(text.substr(begin, pos - begin), out);
      out += text.substr(pos, length);
      begin = pos + length;
    }
    pos += length;
  }
  append_composed(text.substr(begin), out);
  return out;
}

}  // namespace moerun
