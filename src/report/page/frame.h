#pragma once
#include <string>

namespace moerun {

/// A page up to its title, which is its first heading, and from its foot on: self-contained, and so that
/// nothing runs and nothing is asked for, should a text ever get past the escaping. `title`: not escaped yet.
std::string page_begin(const std::string& title);
/// `program`: who made it.
std::string page_end(const std::string& program);

}  // namespace moerun
