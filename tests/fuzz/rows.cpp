#include "io/json_row.h"
#include "tests/fuzz/harness.h"

namespace moerun::fuzz {

/// A line of a `.jsonl` of this program's own form.
void read_rows(std::string_view bytes) {
  PromptRecord record;
  read_plain_row(parse_json_line(bytes), kVocabulary, record);
}

/// A line of OpenAI's batch form.
void read_openai_rows(std::string_view bytes) {
  const Json line = parse_json_line(bytes);
  is_openai_line(line);
  PromptRecord record;
  read_openai_row(line, {"tiny-moe", "data/tiny-moe"}, kVocabulary, record);
}

}  // namespace moerun::fuzz
