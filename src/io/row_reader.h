#pragma once
#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "io/content_sums.h"
#include "moerun/job.h"
#include "moerun/record.h"

namespace moerun {

/// The rows of one input format, good or bad. What is wrong with a row goes into PromptRecord::error; only a
/// file that cannot be read further throws (BadInput). Thread contract: one thread.
class RowReader {
 public:
  virtual ~RowReader() = default;
  /// The next row; false at the end. `record` is overwritten, but for `sampling`, which comes as the job's.
  virtual bool next(PromptRecord& record) = 0;
  /// Goes on at `row`, which may be the number of rows.
  virtual void seek(uint64_t row) = 0;
  /// "FILE:LINE" or "FILE: row N" of the place numbered `place`.
  virtual std::string where(uint64_t place) const = 0;
  /// The number of the last row's place: its line, or the row itself.
  virtual uint64_t place() const = 0;
  virtual bool is_openai() const { return false; }

  /// Reads on to the end where the whole file counts, and says what was read since the beginning.
  virtual ContentSums finish() = 0;
  /// Begins again. From now on next() throws Error before a row of what is not as `sums` says.
  virtual void verify(std::shared_ptr<const ContentSums> sums) = 0;
};

std::unique_ptr<RowReader> open_jsonl_rows(const Job& job, int64_t vocab_size);
std::unique_ptr<RowReader> open_text_rows(const Job& job);
std::unique_ptr<RowReader> open_hdf5_rows(const Job& job, int64_t vocab_size);
/// The most that a length of `input.random` may be drawn as.
int32_t most_random_length(int64_t mean, double range_ratio);
std::unique_ptr<RowReader> make_random_rows(const Job& job, int64_t vocab_size);

/// The reader that the input's extension (or `input.random`) asks for.
std::unique_ptr<RowReader> open_rows(const Job& job, int64_t vocab_size);

/// Adds what is wrong with a row to what else is.
void add_fault(PromptRecord& record, const std::string& what);

/// Faults of an id that is no UTF-8 or has a NUL in it: no HDF5 string could hold it.
void check_id(PromptRecord& record);
/// Faults of an empty prompt and of text that is not UTF-8.
void check_prompt_text(PromptRecord& record);
/// Sets prompt_token_ids; faults of none, and of ids outside of the vocabulary.
void set_prompt_tokens(PromptRecord& record, std::span<const int64_t> ids, int64_t vocab_size);

}  // namespace moerun
