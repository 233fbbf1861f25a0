#pragma once
#include <yaml-cpp/mark.h>

#include <cstddef>
#include <string>
#include <vector>

namespace moerun {

struct YamlEntry;

/// A YAML document as it was written: scalars are text still, aliases are what they stand for.
struct YamlNode {
  enum class Kind { null, scalar, list, map } kind = Kind::null;
  YAML::Mark mark;  ///< where it begins
  std::string tag;  ///< of a scalar: "?" where it is plain and has none
  std::string scalar;
  std::vector<YamlNode> items;     ///< of a list
  std::vector<YamlEntry> entries;  ///< of a mapping, in order, keys that come twice too

  bool is(Kind other) const { return kind == other; }
};

/// Not a std::pair: that may not be of a type which is being defined (libstdc++ lets it pass, clang does
/// not).
struct YamlEntry {
  YamlNode key, value;
};

// What no job needs, and a hostile file would use: beyond it a text is refused.
inline constexpr size_t kMostYamlBytes = size_t{256} << 10;
inline constexpr int kMostYamlDepth = 16;          ///< of lists and mappings in one another
inline constexpr size_t kMostYamlNodes = 100'000;  ///< once aliases stand for what they name

/// What is wrong with a text that is no YAML, and where.
struct YamlFault {
  YAML::Mark mark;
  std::string what;
};

/// The one document of a text; null when there is none. Throws YamlFault for a text that is no YAML, has
/// several documents, or is beyond the limits. Time and memory are bounded by the limits, whatever the text.
YamlNode read_yaml(const std::string& text);

}  // namespace moerun
