#pragma once
#include <string>
#include <string_view>
#include <vector>

namespace moerun {

/// How many letters must be added, dropped or changed to make one word of the other (Levenshtein).
size_t edit_distance(std::string_view a, std::string_view b);

/// The known name that an unknown one was probably meant to be. Names may have sections ("sampling.seed"):
/// the last part counts, and another section than the unknown name's counts one letter.
std::string nearest(std::string_view unknown, const std::vector<std::string>& known);

}  // namespace moerun
