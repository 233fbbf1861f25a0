#pragma once
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "job/fields.h"

namespace moerun {

/// What a JSON line may be at most. Beyond the bytes (LineReader::kMostBytes) these bound the memory and the
/// time that a line takes: a value is 16 bytes, and objects are looked through from their beginning.
struct JsonLineLimits {
  static constexpr int kMostDepth = 100;  ///< levels of nesting; what is nested is later walked by recursion
  static constexpr size_t kMostKeys = 1024;                   ///< of an object
  static constexpr size_t kMostValues = size_t{1} << 24;      ///< in a line
  static constexpr size_t kMostContainers = size_t{1} << 20;  ///< objects and lists in a line
};

/// A line of a JSONL file, read.
struct JsonLine {
  Json value;  ///< an object, unless there is a fault
  std::string
      fault;  ///< why the line is no row: not UTF-8, not JSON, no object, a key twice, beyond JsonLineLimits
  /// With a fault: what was read of the line's own `id` and `custom_id`, in `value`, so that its answer can
  /// carry them.

  /// The line's own `prompt_token_ids` where it is a list of 64-bit integers and nothing else: `value` has an
  /// empty list in its place. A Json a token would take most of the time in which such a file is read.
  std::optional<std::vector<int64_t>> prompt_token_ids;
};

/// Reads a line in one pass, in time and memory linear in its length.
JsonLine read_json_line(std::string_view line);

}  // namespace moerun
