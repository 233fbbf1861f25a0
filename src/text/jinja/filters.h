#pragma once
#include "text/jinja/builtins.h"

namespace moerun::jinja {

// The parts of the table of filters, one a file.
FilterFunction find_text_filter(std::string_view name);
FilterFunction find_item_filter(std::string_view name);

// str methods that filters share.
std::vector<std::string_view> split_lines(std::string_view text, bool keep_ends);
std::string replaced(Runtime& runtime, std::string_view text, std::string_view from, std::string_view to,
                     int64_t most);
/// str.strip(): what stands in `set` (white space without one) is taken from the ends asked for.
std::string_view stripped(std::string_view text, const std::string* set, bool left, bool right);
/// Python's int(text, base) and float(text): none where it raises ValueError.
std::optional<Integer> parse_integer(std::string_view text, int64_t base);
std::optional<double> parse_float(std::string_view text);

}  // namespace moerun::jinja
