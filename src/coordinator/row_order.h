#pragma once
#include <cstdint>
#include <deque>
#include <filesystem>
#include <memory>
#include <optional>
#include <vector>

#include "coordinator/form_table.h"
#include "coordinator/messages.h"
#include "io/record_sort.h"
#include "moerun/record.h"

namespace moerun {

/// Puts rows in an order in which those that begin alike meet, and shares them out to data-parallel groups so
/// that what rows begin with is computed by one group. Once sorted by their prompts, rows are cut into pieces
/// where that costs next to nothing: where a row has so little in common with the one before it that to
/// compute it once more is less than a two-hundredth of what the piece computes anyway. A group works through
/// one piece after the other, the largest first. Rows that are answered as the row before them is
/// (engine/repeated_rows.h) cost nothing, and stay with it.
///
/// Text is sorted as text, and a conversation as its JSON: texts that begin alike have tokens that begin
/// alike, so nothing is tokenized here. Memory is bounded; what is more lies in files without names. Thread
/// contract: the coordinator thread. Throws FileError.
class RowOrder {
 public:
  struct Options {
    std::filesystem::path directory;  ///< for files without names
    size_t num_groups = 1;
    uint64_t memory_bytes = uint64_t{64} << 20;  ///< for sorting, and again for what is sorted and for forms
  };
  explicit RowOrder(const Options& options);

  void add(PromptRecord record);
  /// No more come; from now on rows are handed out.
  void finish();
  bool finished() const { return finished_; }

  /// Rows that no group has got.
  uint64_t rows_left() const { return rows_left_; }
  /// The group's next row. `begins`: the group is to have a new piece when its own is at its end. False:
  /// there is none for it, or none without a new piece.
  bool next(size_t group, bool begins, PromptRecord& record, RowPlace& place);
  /// Whether there is nothing more for the group, ever.
  bool exhausted(size_t group) const { return pieces_.empty() && groups_[group].rows == 0; }

 private:
  /// Rows that one group gets, as they lie in the spool.
  struct Piece {
    uint64_t begin = 0, end = 0, rows = 0;
    double work = 0;  ///< in prompt tokens
  };
  struct Group {
    std::optional<RecordReader> reader;
    uint64_t rows = 0;  ///< left of its piece
  };

  Options options_;
  FormTable forms_;
  RecordSorter sorter_;
  Spool sorted_;
  double work_ = 0;  // of all rows, if nothing were shared
  uint64_t rows_left_ = 0;
  bool finished_ = false;
  std::deque<Piece> pieces_;
  std::vector<Group> groups_;
};

}  // namespace moerun
