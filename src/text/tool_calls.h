#pragma once
#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

namespace moerun {

// Calls of functions that a model wrote in its family's format, as OpenAI's `tool_calls`. Pure.

/// The formats that find_tool_calls reads.
enum class ToolFormat : uint8_t { none, hermes, coder, glm, minimax };

/// Which of them a chat template tells its model to write, by the markers in its text.
ToolFormat tool_format_of(std::string_view chat_template);

/// Whether a record's `tools` are what its answers are held to, not only what is looked for in them:
/// {"mode": "auto" | "required" | "named", "parallel": bool, "tools": [...]} as JSON
/// (grammar/tool_grammar.h).
inline bool are_held_calls(std::string_view tools) { return tools.starts_with('{'); }

/// The functions that a request offers: of each its parameters' types, as its JSON Schema says.
class ToolFunctions {
 public:
  using Types = std::set<std::string>;  ///< "string", "integer", …; empty: the schema does not say

  ToolFunctions() = default;
  /// OpenAI's `tools`: [{"type": "function", "function": {"name", "parameters"?}}, …] as JSON, or held calls
  /// (are_held_calls) with such a list. Entries of another form are passed over.
  explicit ToolFunctions(std::string_view tools);

  /// Held calls of the one function that the request named.
  bool named() const { return named_; }
  bool empty() const { return functions_.empty(); }
  bool has(std::string_view name) const { return functions_.contains(name); }
  /// Of a parameter, or of one that the function does not have.
  Types types_of(std::string_view function, std::string_view parameter) const;

 private:
  std::map<std::string, std::map<std::string, Types, std::less<>>, std::less<>> functions_;
  bool named_ = false;
};

struct ToolCall {
  std::string name;
  std::string arguments;  ///< a JSON object
  std::string said = {};  ///< the text between the call before and this one, if it is more than space
  bool operator==(const ToolCall&) const = default;
};

/// Where in a text calls stand, from the first one's marker to behind the last one's.
struct ToolCalls {
  size_t begin = 0, end = 0;
  std::vector<ToolCall> calls;
};

/// The calls in an answer. None where there are none, and also where one of them cannot be read: it is cut
/// short, is no JSON, or calls a function that there is not; then all of the answer is text. Formats:
///
/// - Hermes and Qwen3: `<tool_call>{"name": …, "arguments": {…}}</tool_call>`; arguments keep their spelling,
///   but for control characters in texts, which JSON escapes
/// - Qwen3-Coder: `<tool_call><function=NAME><parameter=KEY>VALUE</parameter>…</function></tool_call>`
/// - GLM: `<tool_call>NAME<arg_key>KEY</arg_key><arg_value>VALUE</arg_value>…</tool_call>`
/// - MiniMax: `<minimax:tool_call><invoke name="NAME"><parameter name="KEY">VALUE</parameter>…</invoke>…
///   </minimax:tool_call>`
///
/// A VALUE is value_between_tags. It ends with its closing tag, but where it is a list or an object with
/// JSON, whose texts may have that tag.
std::optional<ToolCalls> find_tool_calls(std::string_view text, const ToolFunctions& functions);

}  // namespace moerun
