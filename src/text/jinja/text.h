#pragma once
#include <string>
#include <string_view>
#include <vector>

#include "text/jinja/value.h"

namespace moerun::jinja {

/// Python's str(): what `{{ value }}` prints.
std::string text_of(const Value& value);
/// Python's repr().
std::string repr(const Value& value);
/// repr() of a string, quoted and escaped.
std::string shown_text(std::string_view text);
/// repr() of a float: the shortest digits that give it back, an exponent below 1e-4 and from 1e16.
std::string float_text(double value);

bool is_ascii(std::string_view text);
/// The number of code points of UTF-8.
size_t length(std::string_view text);
/// The code points, each as its bytes.
std::vector<std::string_view> characters(std::string_view text);
/// The byte at which code point `index` ≤ length(text) begins.
size_t byte_of(std::string_view text, size_t index);
void append_utf8(char32_t c, std::string& out);

/// Python's str.isspace() of a character.
bool is_space(char32_t c);
/// As str.strip() without an argument.
std::string_view strip_left(std::string_view text);
std::string_view strip_right(std::string_view text);

/// markupsafe's escape(): & < > ' " as entities.
std::string escape(std::string_view text);

}  // namespace moerun::jinja
