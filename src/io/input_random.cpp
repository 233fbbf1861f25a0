#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "io/row_reader.h"
#include "moerun/random.h"

namespace moerun {
namespace {

/// A uniform integer in [0, count) from 32 random bits (Lemire's multiplication; count is far below 2³²).
int64_t below(int64_t count, uint32_t word) {
  return static_cast<int64_t>((static_cast<uint64_t>(word) * static_cast<uint64_t>(count)) >> 32);
}

/// Rows from a counter-based generator keyed by (seed, row): any of them at once.
class RandomRows : public RowReader {
 public:
  RandomRows(const Job& job, int64_t vocab_size)
      : random_(*job.input.random), job_sampling_(job.sampling), vocab_size_(vocab_size) {}

  bool next(PromptRecord& record) override {
    if (row_ == static_cast<uint64_t>(random_.num_prompts)) return false;
    record = {};
    record.row = row_++;
    record.sampling = job_sampling_;
    const Philox4x32 lengths = draw_words(draw_key(random_.seed, stream_of_row(record.row), kLengths), 0);
    record.sampling.max_tokens = static_cast<int32_t>(length(random_.output_len, lengths.word[1]));
    record.sampling.min_tokens = std::min(record.sampling.min_tokens, record.sampling.max_tokens);
    record.sampling.ignore_eos = true;  // the answer has the length that was asked for

    std::vector<int32_t>& tokens = record.prompt_token_ids.emplace();
    tokens.resize(static_cast<size_t>(length(random_.input_len, lengths.word[0])));
    const DrawKey key = draw_key(random_.seed, stream_of_row(record.row), kTokens);
    for (size_t i = 0; i < tokens.size(); i += 4) {
      const Philox4x32 draw = draw_words(key, static_cast<uint32_t>(i / 4));
      for (size_t j = i; j < std::min(i + 4, tokens.size()); ++j)
        tokens[j] = static_cast<int32_t>(below(vocab_size_, draw.word[j - i]));
    }
    return true;
  }

  void seek(uint64_t row) override { row_ = std::min(row, static_cast<uint64_t>(random_.num_prompts)); }
  ContentSums finish() override { return {}; }
  void verify(std::shared_ptr<const ContentSums> /*sums*/) override { row_ = 0; }  // nothing of it can change
  std::string where(uint64_t place) const override { return fmt::format("input.random: row {}", place); }
  uint64_t place() const override { return row_ - 1; }

 private:
  static constexpr int32_t kLengths = 0, kTokens = 1;  // the draws' positions

  int64_t length(int64_t mean, uint32_t word) const {
    const auto least =
        std::max<int64_t>(1, std::llround(std::floor(static_cast<double>(mean) * (1 - random_.range_ratio))));
    const int64_t most = most_random_length(mean, random_.range_ratio);
    return least + below(most - least + 1, word);
  }

  RandomInput random_;
  SamplingParams job_sampling_;
  int64_t vocab_size_;
  uint64_t row_ = 0;  // the next one's
};

}  // namespace

int32_t most_random_length(int64_t mean, double range_ratio) {
  return static_cast<int32_t>(
      std::min<int64_t>(INT32_MAX, std::llround(std::floor(static_cast<double>(mean) * (1 + range_ratio)))));
}

std::unique_ptr<RowReader> make_random_rows(const Job& job, int64_t vocab_size) {
  return std::make_unique<RandomRows>(job, vocab_size);
}

}  // namespace moerun
