#include <fmt/format.h>

#include <deque>
#include <iterator>

#include "io/json_line.h"
#include "io/json_row.h"
#include "io/line_reader.h"
#include "io/row_reader.h"

namespace moerun {
namespace {

/// A JSON object a line: this program's own rows, or OpenAI batch lines when the first line is one.
class JsonlRows : public RowReader {
 public:
  JsonlRows(const Job& job, int64_t vocab_size)
      : job_sampling_(job.sampling),
        vocab_size_(vocab_size),
        model_names_(model_names_of(job.model.path)),
        lines_(job.input.path) {
    // The first line that is an object decides; what is broken before it says nothing.
    bool decided = false;
    for (std::string_view line; !decided && lines_.next(line);) {
      const JsonLine read = read_json_line(line);
      openai_ = read.value.is_object() && is_openai_line(read.value);
      decided = openai_ || read.fault.empty();
    }
    lines_.rewind();
  }

  bool next(PromptRecord& record) override {
    if (!more_.empty()) {
      record = std::move(more_.front());
      more_.pop_front();
      ++row_;
      return true;
    }
    std::string_view line;
    if (!lines_.next(line)) return false;
    record = {};
    record.row = row_++;
    record.sampling = job_sampling_;
    if (lines_.is_too_long()) {
      add_fault(record, fmt::format("the line is longer than {} MiB", LineReader::kMostBytes >> 20));
      return true;
    }
    JsonLine read = read_json_line(line);
    if (!read.fault.empty()) {
      add_fault(record, read.fault);
      read_id_of_bad_line(read.value, openai_ ? "custom_id" : "id", record);
    } else if (openai_) {
      std::vector<PromptRecord> rows =
          read_openai_rows(std::move(read.value), model_names_, vocab_size_, record);
      record = std::move(rows.front());
      more_.assign(std::make_move_iterator(rows.begin() + 1), std::make_move_iterator(rows.end()));
    } else {
      read_plain_row(std::move(read), vocab_size_, record);
    }
    return true;
  }

  void seek(uint64_t row) override {
    if (row < row_) {
      lines_.rewind();
      row_ = 0;
      more_.clear();
    }
    for (; row_ < row && !more_.empty(); ++row_) more_.pop_front();
    while (row_ < row) {
      std::string_view line;
      if (!lines_.next(line)) return;
      const uint64_t rows = openai_ && !lines_.is_too_long() ? num_openai_rows(line) : 1;
      if (rows == 1)
        ++row_;
      else
        for (read_several(line); row_ < row && !more_.empty(); ++row_) more_.pop_front();
    }
  }

  ContentSums finish() override { return lines_.finish(); }
  void verify(std::shared_ptr<const ContentSums> sums) override {
    lines_.verify(std::move(sums));
    row_ = 0;
    more_.clear();
  }

  std::string where(uint64_t place) const override { return fmt::format("{}:{}", lines_.path(), place); }
  uint64_t place() const override { return lines_.number(); }
  bool is_openai() const override { return openai_; }

 private:
  /// Takes all rows of a line that has several.
  void read_several(std::string_view line) {
    PromptRecord first;
    first.row = row_;
    first.sampling = job_sampling_;
    std::vector<PromptRecord> rows =
        read_openai_rows(read_json_line(line).value, model_names_, vocab_size_, first);
    more_.assign(std::make_move_iterator(rows.begin()), std::make_move_iterator(rows.end()));
  }

  SamplingParams job_sampling_;
  int64_t vocab_size_;
  std::vector<std::string> model_names_;
  LineReader lines_;
  bool openai_ = false;
  uint64_t row_ = 0;               // the next one's
  std::deque<PromptRecord> more_;  // rows of the last line that follow
};

}  // namespace

std::unique_ptr<RowReader> open_jsonl_rows(const Job& job, int64_t vocab_size) {
  return std::make_unique<JsonlRows>(job, vocab_size);
}

}  // namespace moerun
