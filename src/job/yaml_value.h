#pragma once
#include <string>

#include "job/fields.h"
#include "job/yaml_tree.h"

namespace moerun {

/// A YAML value as JSON: plain scalars by YAML 1.2's core schema (so that "3:55:00" and "yes" are texts),
/// quoted ones as texts. Throws BadInput (a message without a place) for an empty value (`seed:` and no
/// more): what was meant cannot be known; and, unless the value may be `nested`, for mappings and for lists
/// inside of lists. `text` is what `node` was read from.
Json value_of_yaml(const YamlNode& node, const std::string& text, bool nested = false);

/// A value in YAML that value_of_yaml reads back to itself: JSON, and plain words without their quotes.
std::string yaml_of_value(const Json& value);

}  // namespace moerun
