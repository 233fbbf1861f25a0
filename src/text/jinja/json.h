#pragma once
#include <optional>
#include <string>
#include <string_view>

#include "text/jinja/runtime.h"

namespace moerun::jinja {

/// Parameters of Python's json.dumps(), their defaults Hugging Face's.
struct JsonStyle {
  bool ensure_ascii = false;
  bool sort_keys = false;
  std::optional<std::string> indent;  ///< of one level; none: all on one line
  std::string item_separator = ", ";
  std::string key_separator = ": ";
};

/// json.dumps(value): what `tojson` is in Hugging Face's chat templates.
std::string to_json(Runtime& runtime, const Value& value, const JsonStyle& style);

/// json.loads(text): keys in their order, of one given twice the last; whole numbers of any size. Throws
/// BadInput.
Value from_json(Runtime& runtime, std::string_view text);

}  // namespace moerun::jinja
