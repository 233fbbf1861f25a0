#include "io/result_hdf5.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <limits>
#include <optional>
#include <span>
#include <string_view>
#include <type_traits>
#include <vector>

#include "io/hdf5.h"
#include "io/result_columns.h"
#include "moerun/error.h"

namespace moerun {

namespace {

constexpr uint64_t kSchemaVersion = 2;
constexpr const char* kGroup = "results";
constexpr float kNone = std::numeric_limits<float>::quiet_NaN();
constexpr uint8_t kNotAsked = 255;

/// The attributes of an output, once for writing and once for reading back.
void visit_attributes(const OutputAttributes& attributes, const auto& visit) {
  const Provenance& provenance = attributes.provenance;
  visit("schema_version", kSchemaVersion);
  visit("program", std::string("moerun"));
  visit("program_version", provenance.program_version);
  visit("git_revision", provenance.git_revision);
  visit("job", provenance.job_yaml);
  visit("model_checksum", provenance.model_checksum);
  visit("tokenizer_checksum", provenance.tokenizer_checksum);
  visit("weights_checksum", provenance.weights_checksum);
  visit("layout", provenance.layout);
  visit("device", provenance.device);
  visit("seed", provenance.seed);
  visit("sampling_defaults", provenance.sampling_defaults);
  visit("start", attributes.start);
  visit("end", attributes.end);
  visit("fingerprint", attributes.fingerprint);
  visit("num_rows", attributes.num_rows);
  visit("num_row_errors", attributes.num_row_errors);
}

}  // namespace

struct Hdf5Results::Columns {
  Columns(const std::filesystem::path& path, const RowTraits& traits, uint64_t num_rows,
          const RoutedShape& shape)
      : file(hdf5::File::create(path.string())), group(file.create_group(kGroup)) {
    const uint64_t row_chunk = std::min(num_rows, kChunkValues);
    const uint64_t string_chunk = std::min(num_rows, kStringBatch);
    const uint64_t num_answers = traits.several_answers ? traits.num_answers : num_rows;
    const uint64_t answer_chunk = std::min(num_answers, kChunkValues);
    tokens.emplace(*group, "tokens", kChunkValues);
    offsets.emplace(*group, "offsets", answer_chunk + 1);
    text.emplace(*group, "text", kChunkValues);
    text_offsets.emplace(*group, "text_offsets", answer_chunk + 1);
    id.emplace(*group, "id", string_chunk);
    id_is_integer.emplace(*group, "id_is_integer", row_chunk);
    prompt_length.emplace(*group, "prompt_length", row_chunk);
    if (traits.prompt_truncated) prompt_truncated.emplace(*group, "prompt_truncated", row_chunk);
    finish_reason.emplace(*group, std::min(num_answers, kStringBatch));
    if (traits.several_answers) {
      answer_row.emplace(*group, "answer_row", answer_chunk);
      answer_index.emplace(*group, "answer_index", answer_chunk);
    }
    error.emplace(*group, "error", string_chunk);
    if (traits.logprobs) logprobs.emplace(*group, "logprobs", kChunkValues);
    num_top = static_cast<uint64_t>(std::max(traits.num_top_logprobs, 0));
    if (num_top > 0) {
      top_tokens.emplace(*group, "top_tokens", kChunkValues / num_top, std::vector<uint64_t>{num_top});
      top_logprobs.emplace(*group, "top_logprobs", kChunkValues / num_top, std::vector<uint64_t>{num_top});
    }
    if (traits.prompt_logprobs) {
      prompt_logprobs.emplace(*group, "prompt_logprobs", kChunkValues);
      prompt_offsets.emplace(*group, "prompt_offsets", row_chunk + 1);
      prompt_offsets->push(0);
      num_prompt_top = static_cast<uint64_t>(std::max(traits.num_prompt_top_logprobs, 0));
      if (num_prompt_top > 0) {
        const uint64_t chunk = kChunkValues / num_prompt_top;
        prompt_top_tokens.emplace(*group, "prompt_top_tokens", chunk, std::vector<uint64_t>{num_prompt_top});
        prompt_top_logprobs.emplace(*group, "prompt_top_logprobs", chunk,
                                    std::vector<uint64_t>{num_prompt_top});
      }
      if (traits.prompt_is_greedy) prompt_is_greedy.emplace(*group, "prompt_is_greedy", kChunkValues);
    }
    offsets->push(0);
    text_offsets->push(0);
    if (!shape.kept()) return;
    routed_experts.emplace(*group, "routed_experts", shape);
    prompt_routed_experts.emplace(*group, "prompt_routed_experts", shape);
    prompt_routed_offsets.emplace(*group, "prompt_routed_offsets", row_chunk + 1);
    prompt_routed_offsets->push(0);
    routed_layers.emplace(*group, "routed_layers", shape.layers.size());
    routed_layers->push(shape.layers);
  }

  hdf5::File file;
  std::optional<hdf5::Group> group;
  std::optional<Column<int32_t>> tokens, prompt_length, prompt_truncated, top_tokens, prompt_top_tokens,
      answer_index, routed_layers;
  std::optional<Column<uint64_t>> offsets, text_offsets, prompt_offsets, answer_row, prompt_routed_offsets;
  std::optional<Column<uint8_t>> text, id_is_integer, prompt_is_greedy;
  std::optional<StringColumn> id, error;
  std::optional<ReasonColumn> finish_reason;
  std::optional<Column<float>> logprobs, top_logprobs, prompt_logprobs, prompt_top_logprobs;
  std::optional<RoutedColumn> routed_experts, prompt_routed_experts;
  uint64_t num_top = 0, num_prompt_top = 0, num_tokens = 0, num_text_bytes = 0, num_prompt_logprobs = 0,
           num_prompt_routed = 0;
};

Hdf5Results::Hdf5Results(const std::filesystem::path& path, const RowTraits& traits, uint64_t num_rows,
                         const RoutedShape& shape)
    : columns_(std::make_unique<Columns>(path, traits, num_rows, shape)) {}

Hdf5Results::~Hdf5Results() {
  // HDF5 crashes when it is to close what it cannot write (1.10, full disk). A file that was not finished is
  // rubbish and its process is about to end, so its handles are left as they are.
  if (!finished_) (void)columns_.release();
}

namespace {

struct TopColumns {
  Column<int32_t>& tokens;
  Column<float>& logprobs;
  uint64_t count;  // of each token
};

/// The most likely of each of `num_tokens` tokens, for which a row has `count` each or none.
void push_top(const TopColumns& to, uint64_t num_tokens, const std::vector<std::pair<int32_t, float>>& top,
              int32_t count) {
  const auto has = static_cast<uint64_t>(std::max(count, 0));
  for (uint64_t i = 0; i < num_tokens; ++i)
    for (uint64_t k = 0; k < to.count; ++k) {
      const auto& [token, logprob] = k < has ? top.at(i * has + k) : std::pair<int32_t, float>(-1, kNone);
      to.tokens.push(token);
      to.logprobs.push(logprob);
    }
}

}  // namespace

/// One of a row's answers: the row itself, or one of its others.
void Hdf5Results::append_answer(const RowResult& row, int32_t index, const auto& answer) {
  Columns& to = *columns_;
  const uint64_t num_tokens = answer.token_ids.size();
  to.tokens->push(answer.token_ids);
  to.offsets->push(to.num_tokens += num_tokens);
  to.text->push({reinterpret_cast<const uint8_t*>(answer.text.data()), answer.text.size()});
  to.text_offsets->push(to.num_text_bytes += answer.text.size());
  to.finish_reason->push(answer.finish_reason);
  if (to.answer_row) {
    to.answer_row->push(row.row);
    to.answer_index->push(index);
  }
  // The per-token columns stay aligned with `tokens` also for a row that did not ask for them.
  if (to.logprobs && answer.logprobs.empty())
    to.logprobs->push(num_tokens, kNone);
  else if (to.logprobs)
    to.logprobs->push(answer.logprobs);
  if (to.num_top > 0)
    push_top({.tokens = *to.top_tokens, .logprobs = *to.top_logprobs, .count = to.num_top}, num_tokens,
             answer.top_logprobs, row.num_top_logprobs);
  if (to.routed_experts) to.routed_experts->push(answer.routed, num_tokens);
}

void Hdf5Results::append(const RowResult& result) {
  Columns& to = *columns_;
  append_answer(result, 0, result);
  for (int32_t index = 1; const Answer& answer : result.more_answers) append_answer(result, index++, answer);
  to.id->push(result.id);
  to.id_is_integer->push(result.id_kind == IdKind::integer);
  to.prompt_length->push(result.prompt_length);
  if (to.prompt_truncated) to.prompt_truncated->push(std::max(result.prompt_truncated, 0));
  to.error->push(result.error);
  if (to.prompt_logprobs) {
    to.prompt_logprobs->push(result.prompt_logprobs);
    to.prompt_offsets->push(to.num_prompt_logprobs += result.prompt_logprobs.size());
  }
  if (to.num_prompt_top > 0)
    push_top(
        {.tokens = *to.prompt_top_tokens, .logprobs = *to.prompt_top_logprobs, .count = to.num_prompt_top},
        result.prompt_logprobs.size(), result.prompt_top_logprobs, result.num_prompt_top_logprobs);
  // Aligned with `prompt_logprobs` also for a row that did not ask for it.
  if (to.prompt_is_greedy && result.prompt_is_greedy.empty())
    to.prompt_is_greedy->push(result.prompt_logprobs.size(), kNotAsked);
  else if (to.prompt_is_greedy)
    to.prompt_is_greedy->push(result.prompt_is_greedy);
  if (to.prompt_routed_experts) {  // a row with an error has none
    const auto num_prompt = result.error.empty() ? static_cast<uint64_t>(result.prompt_length) : 0;
    to.prompt_routed_experts->push(result.prompt_routed, num_prompt);
    to.prompt_routed_offsets->push(to.num_prompt_routed += num_prompt);
  }
}

WrittenResults Hdf5Results::finish(const OutputAttributes& attributes) {
  Columns& to = *columns_;
  WrittenResults written = {.attributes = attributes};
  const auto close = [&](auto&... columns) {
    const auto close_one = [&](auto& column) {
      if (column) written.columns.push_back(column->close());
      column.reset();
    };
    (close_one(columns), ...);
  };
  close(to.tokens, to.prompt_length, to.prompt_truncated, to.top_tokens, to.offsets, to.text_offsets,
        to.prompt_offsets, to.text, to.id, to.id_is_integer, to.error, to.finish_reason, to.logprobs,
        to.top_logprobs, to.prompt_logprobs, to.prompt_top_tokens, to.prompt_top_logprobs,
        to.prompt_is_greedy, to.answer_row, to.answer_index, to.routed_experts, to.prompt_routed_experts,
        to.prompt_routed_offsets, to.routed_layers);
  to.group->close();
  to.group.reset();
  visit_attributes(attributes,
                   [&](const char* name, const auto& value) { to.file.set_attribute(name, value); });
  to.file.close();
  finished_ = true;
  return written;
}

void read_back(const std::filesystem::path& path, const WrittenResults& written) {
  const auto fail = [&](const std::string& what) {
    throw Error(fmt::format("{} does not read back as it was written: {}", path.string(), what),
                ExitCode::stopped);
  };
  const hdf5::File file = hdf5::File::open(path.string());
  const hdf5::Group group = file.group(kGroup);
  std::vector<std::string> names;
  for (const ColumnSum& column : written.columns) names.push_back(column.name);
  std::sort(names.begin(), names.end());
  if (const auto found = group.children(); found != names)
    fail(fmt::format("it has the columns {} instead of {}", fmt::join(found, ", "), fmt::join(names, ", ")));
  for (const ColumnSum& column : written.columns) {
    const hdf5::Dataset dataset = group.dataset(column.name);
    if (dataset.rows() != column.rows)
      fail(fmt::format("{} has {} rows instead of {}", column.name, dataset.rows(), column.rows));
    const uint64_t step = std::max<uint64_t>(kChunkValues / std::max<uint64_t>(dataset.row_size(), 1), 1);
    Sha256 sum;
    for (uint64_t begin = 0; begin < column.rows; begin += step)
      column.read(dataset, begin, std::min(step, column.rows - begin), sum);
    if (sum.hex() != column.sha256) fail(fmt::format("{} has other values", column.name));
  }
  visit_attributes(written.attributes, [&](const char* name, const auto& value) {
    if constexpr (std::is_convertible_v<decltype(value), std::string>) {
      if (file.string_attribute(name) != value) fail(fmt::format("attribute {} has another text", name));
    } else {
      if (file.number_attribute(name) != value) fail(fmt::format("attribute {} has another value", name));
    }
  });
}

FinishedOutput look_at_finished_output(const std::string& path) {
  const hdf5::File file = hdf5::File::open(path);
  const auto text = [&](const char* name) { return file.string_attribute(name).value_or(""); };
  return {.fingerprint = text("fingerprint"),
          .program_version = text("program_version"),
          .git_revision = text("git_revision"),
          .layout = text("layout"),
          .start = text("start"),
          .end = text("end"),
          .num_rows = file.number_attribute("num_rows").value_or(0),
          .num_row_errors = file.number_attribute("num_row_errors").value_or(0)};
}

}  // namespace moerun
