#pragma once
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "text/code_point_set.h"

namespace moerun {

/// What stands at one position of a byte string that should be UTF-8.
struct Utf8Unit {
  enum class Kind {
    valid,       ///< one code point
    invalid,     ///< a maximal ill-formed subpart: one U+FFFD when decoded lossily
    incomplete,  ///< the string ends inside a code point that may still become valid
  } kind;
  size_t length;  ///< bytes
};

/// Reads the unit that starts at `pos` < bytes.size(). Ill-formed input is cut as Unicode 15.0 section 3.9,
/// table 3-8 says (and Rust's `from_utf8_lossy`, on which Hugging Face's decoder stands).
Utf8Unit utf8_unit_at(std::string_view bytes, size_t pos);

/// Appends `bytes` to `out` as UTF-8, every ill-formed subpart as U+FFFD. Returns how many bytes were read:
/// all of them, less a trailing incomplete unit (at most 3 bytes), which is left to the caller.
size_t append_lossy_utf8(std::string_view bytes, std::string& out);

/// The position of the first ill-formed or incomplete unit; none when `bytes` is valid UTF-8.
std::optional<size_t> find_invalid_utf8(std::string_view bytes);

/// Bytes of the code point that begins with `lead` in valid UTF-8.
constexpr size_t utf8_length(uint8_t lead) { return lead < 0x80 ? 1 : lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4; }

/// The code point at `pos` of valid UTF-8.
char32_t code_point_at(std::string_view text, size_t pos);

/// The code point before `pos` > 0 of valid UTF-8; `pos` is moved to its first byte.
char32_t previous_code_point(std::string_view text, size_t& pos);

/// The code points of a property of Unicode 16: a general category ("Lu", or "L" for all letters) or a script
/// that the tables have ("Han"). None: it is not known.
std::optional<CodePointSet> property_set(std::string_view name);

/// Unicode property White_Space: `\s` of Rust's and Oniguruma's regular expressions.
bool is_white_space(char32_t c);
const CodePointSet& white_space();

/// General category N: Rust's `char::is_numeric`.
bool is_numeric(char32_t c);

/// Unicode Annex 18's `\w`: Alphabetic, M, Nd, Pc or Join_Control.
bool is_word(char32_t c);

inline constexpr std::string_view kReplacementCharacter = "\xEF\xBF\xBD";  // U+FFFD

}  // namespace moerun
