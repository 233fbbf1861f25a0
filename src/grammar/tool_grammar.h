#pragma once
#include <string>

#include "text/tool_calls.h"

namespace moerun {

/// Held calls, {"mode": "auto" | "required" | "named", "parallel": bool, "tools": OpenAI's} as JSON, as
/// xgrammar's structural tag (JSON, https://xgrammar.mlc.ai/docs/structural_tag): with `required` and `named`
/// an answer is calls alone, of functions whose parameters' schemas hold; with `auto` it is any text, in
/// which what begins as a call is one, and a `strict` function's schema holds. Without `parallel` nothing
/// follows the first call. Whatever answers are of that, find_tool_calls reads, and its arguments are of the
/// function's schema. Where the format has tags:
///
/// - only parameters that the function names are written, in the schema's order
/// - texts with a pattern or a length have no `<`
///
/// Throws BadInput: what the format cannot tell, or answers cannot be held to (enforceable_schema), naming
/// the function.
std::string structural_tag_of(const std::string& held_calls, ToolFormat format);

}  // namespace moerun
