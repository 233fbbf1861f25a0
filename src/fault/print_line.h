#pragma once
#include <string>

namespace moerun {

/// A line of the program's on stderr, by one write past stdio, whose lock another thread may hold for ever.
/// From any thread.
void print_line(const std::string& text);

}  // namespace moerun
