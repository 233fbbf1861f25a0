#pragma once
#include <iosfwd>
#include <string>

namespace moerun {

/// `moerun tokenize MODEL_DIR`: for each line of `in`, {"text": ...} or a conversation as
/// ChatTemplate::render() takes it, a line {"ids": [...]} on `out`; for a bad one {"error": "line N: ..."},
/// so that lines stay aligned. Returns the program's exit code: 3 when there were bad lines. Throws Error
/// when the folder has no tokenizer that can be used.
int tokenize_main(const std::string& model_dir, std::istream& in, std::ostream& out);

/// `moerun tokenize --render MODEL_DIR`: for each conversation a line {"text": ...}, what the chat template
/// makes of it, or
/// {"error": ...}: where the template raised an exception its own words alone. Needs no tokenizer.json.
/// Returns the exit code as above; throws BadInput when the folder has no chat template.
int render_main(const std::string& model_dir, std::istream& in, std::ostream& out);

}  // namespace moerun
