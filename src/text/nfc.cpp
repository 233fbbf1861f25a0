#include "text/nfc.h"

#include <fmt/format.h>
#include <utf8proc.h>

#include <algorithm>
#include <array>
#include <vector>

#include "moerun/error.h"
#include "text/unicode.h"

namespace moerun {
namespace {

/// The first code point that can change under NFC or take part in a composition with what stands before it.
constexpr char32_t kFirstComposing = 0x300;

int combining_class(utf8proc_int32_t c) { return utf8proc_get_property(c)->combining_class; }

struct Range {
  char32_t first, last;
};

/// Code points that utf8proc (Unicode 15) reorders or composes and `tokenizers` (Unicode 9) leaves where they
/// are: the marks that came since, found by asking `tokenizers` 0.23 for the NFD of each mark between others;
/// and U+11A7, which utf8proc 2.8 takes for a trailing consonant and drops (it is the one before the first).
constexpr Range kInert[] = {
    {0x07FD, 0x07FD},   {0x0898, 0x089F},   {0x08CA, 0x08D3},   {0x09FE, 0x09FE},   {0x0C3C, 0x0C3C},
    {0x0D3B, 0x0D3C},   {0x0EBA, 0x0EBA},   {0x11A7, 0x11A7},   {0x1715, 0x1715},   {0x1ABF, 0x1ACE},
    {0x1DF6, 0x1DFA},   {0xA82C, 0xA82C},   {0x10D24, 0x10D27}, {0x10EAB, 0x10EAC}, {0x10EFD, 0x10EFF},
    {0x10F46, 0x10F50}, {0x10F82, 0x10F85}, {0x11070, 0x11070}, {0x1133B, 0x1133B}, {0x1145E, 0x1145E},
    {0x11839, 0x1183A}, {0x11930, 0x11930}, {0x11938, 0x11938}, {0x1193D, 0x1193E}, {0x11943, 0x11943},
    {0x119E0, 0x119E0}, {0x11A34, 0x11A34}, {0x11A47, 0x11A47}, {0x11A99, 0x11A99}, {0x11D42, 0x11D42},
    {0x11D44, 0x11D45}, {0x11D97, 0x11D97}, {0x11F41, 0x11F42}, {0x16FF0, 0x16FF1}, {0x1E08F, 0x1E08F},
    {0x1E130, 0x1E136}, {0x1E2AE, 0x1E2AE}, {0x1E2EC, 0x1E2EF}, {0x1E4EC, 0x1E4EF},
};

bool is_inert(char32_t c) {
  const auto* range = std::upper_bound(std::begin(kInert), std::end(kInert), c,
                                       [](char32_t value, const Range& r) { return value < r.first; });
  return range != std::begin(kInert) && c <= range[-1].last;
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

  std::string out;
  out.reserve(text.size());
  size_t begin = 0;  // of what is not yet written
  for (size_t pos = 0; pos < text.size();) {
    const size_t length = utf8_unit_at(text, pos).length;
    if (is_inert(code_point_at(text, pos))) {
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
