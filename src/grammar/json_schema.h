#pragma once
#include <cstddef>
#include <string>
#include <string_view>

namespace moerun {

/// A JSON schema (draft 2020-12 and what earlier ones share with it) as xgrammar keeps all of it: what it
/// would pass over without a word is refused, what it would take too narrowly is written out.
///
/// An object with `properties` has no others, and a list with `prefixItems` no more, unless the schema says
/// so; an object or list of which nothing is said may hold anything.
/// Throws BadInput: a sentence that names the keyword and where it stands ("at #/properties/a").
std::string enforceable_schema(const std::string& schema);

/// Whether a string that matches `pattern` can be written between quotes as it is. xgrammar writes patterns
/// that it cannot keep clear of quotes, backslashes and control characters without escapes.
bool is_plain_pattern(std::string_view pattern);

/// Characters of a pattern once its counted repetitions are written out, about; what xgrammar takes for one
/// grows with their square.
size_t written_out(std::string_view pattern);

}  // namespace moerun
