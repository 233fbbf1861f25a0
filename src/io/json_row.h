#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "job/fields.h"
#include "moerun/record.h"

namespace moerun {

/// A line of a JSONL file as an object. Throws BadInput saying why it is none: not UTF-8, not JSON, a key
/// twice, nested too deep (what is nested is later walked by recursion).
Json parse_json_line(std::string_view line);

/// A line of this program's own form: `prompt` or `prompt_token_ids` or `messages` (with `tools` and
/// `enable_thinking`), `id`, sampling options. Faults go into `record.error`.
void read_plain_row(const Json& line, int64_t vocab_size, PromptRecord& record);

/// Whether a file that begins with this line holds OpenAI batch lines.
bool is_openai_line(const Json& line);

/// A line of OpenAI's batch API (https://platform.openai.com/docs/guides/batch): `custom_id`, `method`,
/// `url`, `body`. What a body leaves out is the job's; what would change an answer in a way that this program
/// does not know is a fault. `model` must be one of `model_names`, or end in one after a slash.
void read_openai_row(const Json& line, const std::vector<std::string>& model_names, int64_t vocab_size,
                     PromptRecord& record);

/// The names by which a request may mean the model in this folder: the folder's path and name, and ORG/NAME
/// of a Hugging Face cache (models--ORG--NAME/snapshots/REVISION).
std::vector<std::string> model_names_of(const std::string& model_path);

// Parts of both forms.
void read_prompt(const Json& value, PromptRecord& record);
void read_prompt_token_ids(const Json& value, int64_t vocab_size, PromptRecord& record);
/// `messages`, and `tools` and `enable_thinking` where they are not null.
void read_messages(const Json& messages, const Json& tools, const Json& enable_thinking,
                   PromptRecord& record);
/// Reads a sampling option; false when `name` is none.
bool read_sampling_field(const std::string& name, const Json& value, PromptRecord& record);
/// A fault that names the nearest of the known names.
void add_unknown(const std::string& name, const std::vector<std::string>& known, PromptRecord& record);
/// What can only be said once all of `given` is read: options that contradict each other, stop token ids
/// outside of the vocabulary.
void check_row_sampling(const Json& given, int64_t vocab_size, PromptRecord& record);
std::vector<std::string> sampling_field_names();

}  // namespace moerun
