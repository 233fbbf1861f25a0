#pragma once
#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>

namespace moerun {

/// What a JSON text of a model's folder may take before it is parsed: a document's memory is about ten times
/// its text, and some of what is done with one (copies, comparisons, dump) recurses.
struct JsonLimits {
  uint64_t bytes = 16u << 20;
  int nesting = 64;  ///< objects and lists in one another
};

/// Parses an object. Throws BadInput that begins with `name` when it is none, or beyond the limits.
nlohmann::json parse_json_object(std::string_view text, const std::string& name,
                                 const JsonLimits& limits = {});

/// The whole of a file. Throws BadInput when it cannot be read, is no regular file (nothing waits for a pipe)
/// or has more than `most_bytes`.
std::string read_text_file(const std::string& path, uint64_t most_bytes);

}  // namespace moerun
