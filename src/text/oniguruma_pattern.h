#pragma once
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "text/code_point_set.h"

namespace moerun {

/// A part of a regular expression: what one character may be, or syntax (groups, repeats, alternatives) that
/// Oniguruma and PCRE2 read alike.
using PatternPart = std::variant<CodePointSet, std::string>;

/// Reads an Oniguruma regular expression (Ruby's syntax, as `tokenizers` uses it) as far as its meaning is
/// known: literals, classes with nested ones and intersections, \s \d \p{..} and their complements, . ^ $ \A
/// \z \Z, groups (?: (?i: (?> (?= (?! (?<= (?<!, repeats. Properties and case are Unicode 16's. Throws Error
/// that names anything else.
std::vector<PatternPart> parse_oniguruma(std::string_view regex);

}  // namespace moerun
