#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "io/segment.h"

namespace moerun {

/// The answers of all segments in row order, one at a time.
///
/// A segment is entered when its first row comes, and left after its last, and those entered hold a window of
/// answers each. Memory is that of the windows, whatever the number of rows; where segments are many, windows
/// are small. Every answer's checksum is checked as it is read. Thread contract:
/// one thread at a time.
class SegmentMerge {
 public:
  /// `segments` hold each row once. The directory must outlive this.
  SegmentMerge(const Directory& directory, std::vector<SegmentRecord> segments, const std::string& run_id);
  ~SegmentMerge();

  /// The next row's answer; false at the end. Throws Error naming what is damaged.
  bool next(RowResult& result);

 private:
  class Cursor;

  void enter_segments();

  const Directory& directory_;
  const std::string run_id_;
  uint64_t window_bytes_ = 0;                     // of answers that a segment keeps in memory
  std::vector<SegmentRecord> segments_;           // by first row
  size_t next_segment_ = 0;                       // the first that was not entered
  std::vector<std::unique_ptr<Cursor>> cursors_;  // a heap: the least row at the front
};

}  // namespace moerun
