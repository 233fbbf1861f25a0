#pragma once
#include <algorithm>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "io/openai_line.h"
#include "io/run_directory.h"
#include "moerun/record.h"

namespace moerun {

/// The lines of a run's answers: batch response lines where its input was OpenAI batch lines, else this
/// program's own. Thread contract: const members from any thread.
class LineWriter {
 public:
  /// `run` says what the input was and which model's folder gives the texts of tokens, if it is there.
  /// Throws BadInput where its tokenizer cannot be read.
  explicit LineWriter(const Manifest& run);

  /// One line without its newline, of the rows that it had in the input, in their order; appends to `out`.
  void append(std::span<const RowResult> rows, std::string& out) const;

 private:
  std::optional<OpenAiLines> openai_;
};

/// Puts the rows of a line together again, of rows that come in their order.
class LineRows {
 public:
  /// The next row. True when its line is whole: rows() has it until the next call. A line whose rows do not
  /// all come is never whole.
  bool add(RowResult&& row) {
    if (row.part.index == 0) rows_.clear();
    const bool follows = row.part.index == static_cast<int32_t>(rows_.size());
    const bool last = row.part.index + 1 == row.part.count;
    rows_.push_back(std::move(row));
    return follows && last;
  }
  std::span<const RowResult> rows() const { return rows_; }
  bool has_error() const {
    return std::any_of(rows_.begin(), rows_.end(),
                       [](const RowResult& row) { return row.finish_reason == FinishReason::error; });
  }

 private:
  std::vector<RowResult> rows_;
};

/// What OpenAI calls `system_fingerprint`: answers with the same one come from the same model, computed by
/// the same program on the same kind of device. "moerun-VERSION-" and 16 hex digits of a SHA-256.
std::string system_fingerprint_of(const Provenance& provenance);

}  // namespace moerun
