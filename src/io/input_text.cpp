#include <fmt/format.h>

#include "io/line_reader.h"
#include "io/row_reader.h"

namespace moerun {
namespace {

/// A prompt a line.
class TextRows : public RowReader {
 public:
  explicit TextRows(const Job& job) : job_sampling_(job.sampling), lines_(job.input.path) {}

  bool next(PromptRecord& record) override {
    std::string_view line;
    if (!lines_.next(line)) return false;
    record = {};
    record.row = row_++;
    record.sampling = job_sampling_;
    record.prompt = std::string(line);
    if (lines_.is_too_long())
      add_fault(record, fmt::format("the line is longer than {} MiB", LineReader::kMostBytes >> 20));
    else
      check_prompt_text(record);
    return true;
  }

  void seek(uint64_t row) override {
    if (row < row_) {
      lines_.rewind();
      row_ = 0;
    }
    for (std::string_view line; row_ < row && lines_.next(line);) ++row_;
  }

  ContentSums finish() override { return lines_.finish(); }
  void verify(std::shared_ptr<const ContentSums> sums) override {
    lines_.verify(std::move(sums));
    row_ = 0;
  }

  std::string where(uint64_t place) const override { return fmt::format("{}:{}", lines_.path(), place); }
  uint64_t place() const override { return lines_.number(); }

 private:
  SamplingParams job_sampling_;
  LineReader lines_;
  uint64_t row_ = 0;  // the next one's
};

}  // namespace

std::unique_ptr<RowReader> open_text_rows(const Job& job) { return std::make_unique<TextRows>(job); }

}  // namespace moerun
