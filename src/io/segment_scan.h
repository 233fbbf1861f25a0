#pragma once
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

#include "io/segment.h"

namespace moerun {

/// What a file that may be a damaged segment turns out to hold.
struct SegmentScan {
  std::string damage;  ///< the first thing that is wrong, a clause; empty: every byte is as it was written
  uint64_t num_sound = 0;  ///< answers that have their checksum and say the row that their entry says
  uint64_t num_rows = 0;   ///< that the file's head speaks of
  bool ascending = true;   ///< each row comes once, in order
  SegmentRecord record;    ///< of the file as it is, traits and rows of its sound answers
};

/// Reads all of a segment's file and calls `visit` with each sound answer, in the order of the file's
/// payload.
///
/// `said` is the ledger's record, or null where it names no such file. What cannot be trusted is passed over,
/// whatever it is: a file that is absent, cut short, no segment, of another run, or larger than
/// kMostSegmentRows and kMostAnswerBytes allow. Memory: 24 bytes a row and the largest answer.
SegmentScan scan_segment(const Directory& directory, const std::string& name, const SegmentRecord* said,
                         const std::string& run_id,
                         const std::function<void(const SegmentEntry&, std::string_view packed)>& visit);

}  // namespace moerun
