#include <fmt/format.h>

#include "io/json_row.h"
#include "io/line_reader.h"
#include "io/row_reader.h"
#include "moerun/error.h"

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
    std::string_view first;
    if (lines_.next(first)) openai_ = begins_openai(first);
    lines_.rewind();
  }

  bool next(PromptRecord& record) override {
    std::string_view line;
    if (!lines_.next(line)) return false;
    record = {};
    record.row = row_++;
    record.sampling = job_sampling_;
    if (lines_.is_too_long()) {
      add_fault(record, fmt::format("the line is longer than {} MiB", LineReader::kMostBytes >> 20));
      return true;
    }
    try {
      const Json row = parse_json_line(line);
      if (openai_)
        read_openai_row(row, model_names_, vocab_size_, record);
      else
        read_plain_row(row, vocab_size_, record);
    } catch (const BadInput& error) {
      add_fault(record, error.what());
    }
    return true;
  }

  void seek(uint64_t row) override {
    if (row < row_) {
      lines_.rewind();
      row_ = 0;
    }
    for (std::string_view line; row_ < row && lines_.next(line);) ++row_;
  }

  std::string where(uint64_t place) const override { return fmt::format("{}:{}", lines_.path(), place); }
  uint64_t place() const override { return lines_.number(); }
  bool is_openai() const override { return openai_; }

 private:
  static bool begins_openai(std::string_view first) {
    try {
      return is_openai_line(parse_json_line(first));
    } catch (const BadInput&) {
      return false;  // next() says what is wrong with it
    }
  }

  SamplingParams job_sampling_;
  int64_t vocab_size_;
  std::vector<std::string> model_names_;
  LineReader lines_;
  bool openai_ = false;
  uint64_t row_ = 0;  // the next one's
};

}  // namespace

std::unique_ptr<RowReader> open_jsonl_rows(const Job& job, int64_t vocab_size) {
  return std::make_unique<JsonlRows>(job, vocab_size);
}

}  // namespace moerun
