#include "io/result_hdf5.h"

#include <algorithm>
#include <limits>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "io/hdf5.h"

namespace moerun {

namespace {

constexpr uint64_t kSchemaVersion = 2;
constexpr uint64_t kChunkValues = 1 << 16;
constexpr float kNone = std::numeric_limits<float>::quiet_NaN();

/// gzip's higher levels cost many times the time for a few percent on such columns.
hdf5::Packing packing(uint64_t chunk_rows) {
  return {.chunk_rows = std::max<uint64_t>(chunk_rows, 1), .gzip = 1, .shuffle = true};
}

/// A dataset of numbers that is written whole chunks at a time, so that each is packed once.
template <hdf5::Number T>
class Column {
 public:
  Column(hdf5::Group& group, const std::string& name, uint64_t chunk_rows,
         const std::vector<uint64_t>& row = {})
      : dataset_(group.create_dataset<T>(name, packing(chunk_rows), row)),
        chunk_values_(std::max<uint64_t>(chunk_rows, 1) * dataset_.row_size()) {}

  void push(T value) {
    buffer_.push_back(value);
    if (buffer_.size() == chunk_values_) flush();
  }
  void push(std::span<const T> values) {
    while (!values.empty()) {
      const size_t count = std::min<size_t>(values.size(), chunk_values_ - buffer_.size());
      buffer_.insert(buffer_.end(), values.begin(), values.begin() + static_cast<ptrdiff_t>(count));
      values = values.subspan(count);
      if (buffer_.size() == chunk_values_) flush();
    }
  }
  void push(uint64_t count, T value) {
    for (uint64_t i = 0; i < count; ++i) push(value);
  }
  void flush() {
    dataset_.append(buffer_);
    buffer_.clear();
  }

 private:
  hdf5::Dataset dataset_;
  uint64_t chunk_values_;
  std::vector<T> buffer_;
};

/// A dataset of strings, written a batch at a time.
class StringColumn {
 public:
  explicit StringColumn(hdf5::Dataset dataset) : dataset_(std::move(dataset)) {}

  void push(const std::string& value) {
    buffer_.push_back(value);
    if (buffer_.size() == kBatch) flush();
  }
  void flush() {
    dataset_.append_strings(buffer_);
    buffer_.clear();
  }
  static constexpr uint64_t kBatch = 8192;

 private:
  hdf5::Dataset dataset_;
  std::vector<std::string> buffer_;
};

class ReasonColumn {
 public:
  ReasonColumn(hdf5::Group& group, uint64_t chunk_rows)
      : dataset_(group.create_fixed_string_dataset("finish_reason", kWidth, packing(chunk_rows))) {}

  void push(FinishReason reason) {
    buffer_.emplace_back(name_of(reason));
    if (buffer_.size() == StringColumn::kBatch) flush();
  }
  void flush() {
    dataset_.append_fixed_strings(buffer_);
    buffer_.clear();
  }

 private:
  static constexpr uint64_t kWidth = 6;  // of "length", the longest
  hdf5::Dataset dataset_;
  std::vector<std::string_view> buffer_;
};

}  // namespace

struct Hdf5Results::Columns {
  Columns(const std::filesystem::path& path, const RowTraits& traits, uint64_t num_rows)
      : file(hdf5::File::create(path.string())), group(file.create_group("results")) {
    const uint64_t row_chunk = std::min(num_rows, kChunkValues);
    const uint64_t string_chunk = std::min(num_rows, StringColumn::kBatch);
    tokens.emplace(*group, "tokens", kChunkValues);
    offsets.emplace(*group, "offsets", row_chunk + 1);
    text.emplace(*group, "text", kChunkValues);
    text_offsets.emplace(*group, "text_offsets", row_chunk + 1);
    id.emplace(group->create_string_dataset("id", packing(string_chunk)));
    id_is_integer.emplace(*group, "id_is_integer", row_chunk);
    prompt_length.emplace(*group, "prompt_length", row_chunk);
    finish_reason.emplace(*group, string_chunk);
    error.emplace(group->create_string_dataset("error", packing(string_chunk)));
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
    }
    offsets->push(0);
    text_offsets->push(0);
  }

  hdf5::File file;
  std::optional<hdf5::Group> group;
  std::optional<Column<int32_t>> tokens, prompt_length, top_tokens;
  std::optional<Column<uint64_t>> offsets, text_offsets, prompt_offsets;
  std::optional<Column<uint8_t>> text, id_is_integer;
  std::optional<StringColumn> id, error;
  std::optional<ReasonColumn> finish_reason;
  std::optional<Column<float>> logprobs, top_logprobs, prompt_logprobs;
  uint64_t num_top = 0, num_tokens = 0, num_text_bytes = 0, num_prompt_logprobs = 0;
};

Hdf5Results::Hdf5Results(const std::filesystem::path& path, const RowTraits& traits, uint64_t num_rows)
    : columns_(std::make_unique<Columns>(path, traits, num_rows)) {}

Hdf5Results::~Hdf5Results() {
  // HDF5 crashes when it is to close what it cannot write (1.10, full disk). A file that was not finished is
  // rubbish and its process is about to end, so its handles are left as they are.
  if (!finished_) (void)columns_.release();
}

void Hdf5Results::append(const RowResult& result) {
  Columns& to = *columns_;
  const uint64_t num_tokens = result.token_ids.size();
  to.tokens->push(result.token_ids);
  to.offsets->push(to.num_tokens += num_tokens);
  to.text->push({reinterpret_cast<const uint8_t*>(result.text.data()), result.text.size()});
  to.text_offsets->push(to.num_text_bytes += result.text.size());
  to.id->push(result.id);
  to.id_is_integer->push(result.id_kind == IdKind::integer);
  to.prompt_length->push(result.prompt_length);
  to.finish_reason->push(result.finish_reason);
  to.error->push(result.error);
  // The per-token columns stay aligned with `tokens` also for a row that did not ask for them.
  if (to.logprobs && result.logprobs.empty())
    to.logprobs->push(num_tokens, kNone);
  else if (to.logprobs)
    to.logprobs->push(result.logprobs);
  const uint64_t has_top = static_cast<uint64_t>(std::max(result.num_top_logprobs, 0));
  for (uint64_t i = 0; to.num_top > 0 && i < num_tokens; ++i)
    for (uint64_t k = 0; k < to.num_top; ++k) {
      const auto& [token, logprob] =
          k < has_top ? result.top_logprobs.at(i * has_top + k) : std::pair<int32_t, float>(-1, kNone);
      to.top_tokens->push(token);
      to.top_logprobs->push(logprob);
    }
  if (to.prompt_logprobs) {
    to.prompt_logprobs->push(result.prompt_logprobs);
    to.prompt_offsets->push(to.num_prompt_logprobs += result.prompt_logprobs.size());
  }
}

void Hdf5Results::finish(const OutputAttributes& attributes) {
  Columns& to = *columns_;
  const auto close = [](auto& column) {
    if (column) column->flush();
    column.reset();
  };
  close(to.tokens), close(to.prompt_length), close(to.top_tokens);
  close(to.offsets), close(to.text_offsets), close(to.prompt_offsets);
  close(to.text), close(to.id), close(to.id_is_integer), close(to.error), close(to.finish_reason);
  close(to.logprobs), close(to.top_logprobs), close(to.prompt_logprobs);
  to.group.reset();

  const Provenance& provenance = attributes.provenance;
  to.file.set_attribute("schema_version", kSchemaVersion);
  to.file.set_attribute("program", "moerun");
  to.file.set_attribute("program_version", provenance.program_version);
  to.file.set_attribute("git_revision", provenance.git_revision);
  to.file.set_attribute("job", provenance.job_yaml);
  to.file.set_attribute("model_checksum", provenance.model_checksum);
  to.file.set_attribute("tokenizer_checksum", provenance.tokenizer_checksum);
  to.file.set_attribute("layout", provenance.layout);
  to.file.set_attribute("device", provenance.device);
  to.file.set_attribute("seed", provenance.seed);
  to.file.set_attribute("start", attributes.start);
  to.file.set_attribute("end", attributes.end);
  to.file.set_attribute("fingerprint", attributes.fingerprint);
  to.file.set_attribute("num_rows", attributes.num_rows);
  to.file.set_attribute("num_row_errors", attributes.num_row_errors);
  to.file.close();
  finished_ = true;
}

FinishedOutput read_finished_output(const std::filesystem::path& path) {
  const hdf5::File file = hdf5::File::open(path.string());
  return {.fingerprint = file.string_attribute("fingerprint").value_or(""),
          .num_row_errors = file.number_attribute("num_row_errors").value_or(0)};
}

}  // namespace moerun
