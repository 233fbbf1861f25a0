#pragma once
#include <string>
#include <string_view>

namespace moerun::jinja {

/// Python's str.lower(), upper(), title(), capitalize(), swapcase() and casefold() of UTF-8: full mappings.
std::string lower(std::string_view text);
std::string upper(std::string_view text);
std::string title(std::string_view text);
std::string capitalize(std::string_view text);
std::string swapcase(std::string_view text);
std::string casefold(std::string_view text);

// Python's predicates of a character.
bool is_alpha(char32_t c);
bool is_decimal(char32_t c);
bool is_digit_character(char32_t c);
bool is_numeric(char32_t c);
bool is_lower(char32_t c);
bool is_upper(char32_t c);
bool is_title(char32_t c);

}  // namespace moerun::jinja
