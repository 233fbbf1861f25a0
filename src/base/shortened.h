#pragma once
#include <cstddef>
#include <string>

namespace moerun {

/// A text for a message: what is longer than `most` bytes ends in "…" behind a whole code point.
std::string shortened(std::string text, size_t most);

}  // namespace moerun
