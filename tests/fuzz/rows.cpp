#include "io/json_line.h"
#include "io/json_row.h"
#include "tests/fuzz/harness.h"

namespace moerun::fuzz {

/// A line of a `.jsonl` of this program's own form.
void read_rows(std::string_view bytes) {
  JsonLine line = read_json_line(bytes);
  if (!line.fault.empty()) return;
  PromptRecord record;
  read_plain_row(std::move(line), kVocabulary, record);
}

/// A line of OpenAI's batch form.
void read_openai_rows(std::string_view bytes) {
  JsonLine line = read_json_line(bytes);
  if (!line.fault.empty()) return;
  is_openai_line(line.value);
  const std::vector<PromptRecord> rows =
      moerun::read_openai_rows(std::move(line.value), {"tiny-moe", "data/tiny-moe"}, kVocabulary, {});
  check(num_openai_rows(bytes) == rows.size(), "a line has as many rows when it is passed over");
}

}  // namespace moerun::fuzz
