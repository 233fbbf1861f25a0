#pragma once
#include <iosfwd>
#include <string>

namespace moerun {

/// `moerun tokenize MODEL_DIR`: for each line of `in`, {"text": ...} or {"messages": [...], "tools"?,
/// "enable_thinking"?}, a line {"ids": [...]} on `out`; for a bad one {"error": "line N: ..."}, so that lines
/// keep their numbers. Memory is that of the longest line. Returns the exit code: ok, or row_errors after a
/// bad line. Throws Error when the model's tokenizer cannot be used.
int tokenize_main(const std::string& model_dir, std::istream& in, std::ostream& out);

}  // namespace moerun
