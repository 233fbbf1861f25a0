#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "io/segment.h"
#include "moerun/error.h"

namespace moerun {

/// The answers of all segments in row order, one at a time.
///
/// A segment is entered when its first row comes, and left after its last, and those entered hold a window of
/// answers each. Memory is that of the windows, whatever the number of rows; where segments are many, windows
/// are small. Every answer's checksum is checked as it is read. Thread contract:
/// one thread at a time.
class SegmentMerge {
 public:
  /// What is told of damage and of how many answers it takes with it: whether to go on without them.
  using PassOver = std::function<bool(const Error& damage, uint64_t num_rows)>;

  /// `segments` hold each row once. The directory must outlive this. Without `pass_over` nothing is.
  SegmentMerge(const Directory& directory, std::vector<SegmentRecord> segments, const std::string& run_id,
               PassOver pass_over = {});
  ~SegmentMerge();

  /// The next row's answer; false at the end. Throws Error naming what is damaged, unless it is passed over.
  bool next(RowResult& result);

 private:
  class Cursor;

  void enter_segments();

  const Directory& directory_;
  const std::string run_id_;
  const PassOver pass_over_;
  uint64_t window_bytes_ = 0;                     // of answers that a segment keeps in memory
  std::vector<SegmentRecord> segments_;           // by first row
  size_t next_segment_ = 0;                       // the first that was not entered
  std::vector<std::unique_ptr<Cursor>> cursors_;  // a heap: the least row at the front
};

}  // namespace moerun
