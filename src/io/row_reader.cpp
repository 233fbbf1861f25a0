#include "io/row_reader.h"

#include <fmt/format.h>

#include "moerun/error.h"
#include "text/unicode.h"

namespace moerun {

std::unique_ptr<RowReader> open_rows(const Job& job, int64_t vocab_size) {
  if (job.input.random) return make_random_rows(job, vocab_size);
  const std::string& path = job.input.path;
  if (path.ends_with(".jsonl")) return open_jsonl_rows(job, vocab_size);
  if (path.ends_with(".txt")) return open_text_rows(job);
  if (path.ends_with(".h5") || path.ends_with(".hdf5")) return open_hdf5_rows(job, vocab_size);
  throw BadInput(fmt::format("input.path must end in .jsonl, .h5, .hdf5 or .txt, not \"{}\"", path));
}

void add_fault(PromptRecord& record, const std::string& what) {
  if (!record.error.empty()) record.error += "; ";
  record.error += what;
}

void check_id(PromptRecord& record) {
  if (record.id.find('\0') == std::string::npos && !find_invalid_utf8(record.id)) return;
  add_fault(record, "the id is no text that can be written (not UTF-8, or it has a NUL in it)");
  record.id.clear();
}

void check_prompt_text(PromptRecord& record) {
  if (record.prompt->empty()) add_fault(record, "the prompt is empty");
  if (const auto at = find_invalid_utf8(*record.prompt))
    add_fault(record, fmt::format("byte {} of the prompt is no valid UTF-8", *at));
}

void set_prompt_tokens(PromptRecord& record, std::span<const int64_t> ids, int64_t vocab_size) {
  if (ids.empty()) add_fault(record, "the prompt has no tokens");
  std::vector<int32_t>& tokens = record.prompt_token_ids.emplace();
  tokens.reserve(ids.size());
  for (size_t i = 0; i < ids.size(); ++i) {
    if (ids[i] < 0 || ids[i] >= vocab_size)
      return add_fault(record, fmt::format("prompt token {} is {}, outside of the model's vocabulary of {}",
                                           i, ids[i], vocab_size));
    tokens.push_back(static_cast<int32_t>(ids[i]));
  }
}

}  // namespace moerun
