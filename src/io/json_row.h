#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "io/json_line.h"
#include "job/fields.h"
#include "moerun/record.h"

namespace moerun {

/// A line of this program's own form: `prompt` or `prompt_token_ids` or `messages` (with what
/// may stand beside them), `id`, sampling options. A field that is null is not given. Faults go into
/// `record.error`.
void read_plain_row(JsonLine line, int64_t vocab_size, PromptRecord& record);

/// Whether a file that begins with this line holds OpenAI batch lines.
bool is_openai_line(const Json& line);

/// A line of OpenAI's batch API (https://platform.openai.com/docs/guides/batch): `custom_id`, `method`,
/// `url`, `body`. What a body leaves out is the job's; what would change an answer in a way that this program
/// does not know is a fault. `model` must be one of `model_names`, or end in one after a slash.
///
/// A completion that lists several prompts gives a row for each, in their order; what is wrong with one of
/// them is wrong with all. `record` has the row's number and the job's sampling. At most kMostPrompts.
std::vector<PromptRecord> read_openai_rows(Json line, const std::vector<std::string>& model_names,
                                           int64_t vocab_size, const PromptRecord& record);
inline constexpr size_t kMostPrompts = 2048;

/// How many rows read_openai_rows gives of a line that is one; cheap where it is 1.
uint64_t num_openai_rows(std::string_view line);

/// The names by which a request may mean the model in this folder: the folder's path and name, and ORG/NAME
/// of a Hugging Face cache (models--ORG--NAME/snapshots/REVISION).
std::vector<std::string> model_names_of(const std::string& model_path);

// Parts of both forms.
void read_prompt(const Json& value, PromptRecord& record);
void read_prompt_token_ids(const Json& value, int64_t vocab_size, PromptRecord& record);
/// `messages` and what may stand beside them (ChatTemplate::render()), of a plain row or a body. A content
/// that is a list of text parts becomes a text.
void read_conversation(const Json& from, PromptRecord& record);
/// The names of these fields, `messages` first.
const std::vector<std::string>& conversation_fields();
/// Reads a sampling option; false when `name` is none.
bool read_sampling_field(const std::string& name, const Json& value, PromptRecord& record);
/// A text or an integer of the whole range of int64 and uint64, in decimal. JSON numbers beyond, or written
/// with point or exponent, are a fault: their digits could not come back.
void read_id(const Json& id, const char* name, PromptRecord& record);
/// The id of a line that is no row, as far as it was read, so that its answer carries it.
void read_id_of_bad_line(const Json& line, const char* name, PromptRecord& record);
/// Takes the members of an object away that are null.
void drop_nulls(Json& object);
/// A fault that names the nearest of the known names where one is near. `where`: what stands before the name.
void add_unknown(const std::string& where, const std::string& name, const std::vector<std::string>& known,
                 PromptRecord& record);
/// What can only be said once all of `given` is read: options that contradict each other, stop token ids
/// outside of the vocabulary.
void check_row_sampling(const Json& given, int64_t vocab_size, PromptRecord& record);
std::vector<std::string> sampling_field_names();

}  // namespace moerun
