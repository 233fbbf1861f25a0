#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "io/row_set.h"
#include "io/run_directory.h"
#include "io/segment.h"

namespace moerun {

/// What earlier processes of a run left: segments that together hold each answered row once.
struct EarlierRun {
  explicit EarlierRun(uint64_t num_rows) : answered(num_rows) {}

  std::vector<SegmentRecord> segments;
  RowSet answered;
  RowTraits traits;
  uint64_t next_number = 1;  ///< of the next segment: beyond all that are or were there
};

/// Reads every answer of the run directory and keeps what is sound, however damaged the rest is.
///
/// The ledger's segments count first, then segments that it does not name: an answer carries its row and its
/// checksum, and its file carries the run, so it is as good without the ledger. A row that is sealed twice is
/// kept once where both answers are the same bytes, and answered again where they differ. What is kept of a
/// damaged segment is written to a new one; then the ledger names what is kept, and all else is removed.
/// `notices` gets a sentence for everything that was dropped or found astray. Throws FileError when the disk
/// does not allow it; then nothing is lost.
EarlierRun read_earlier_run(const RunDirectory& directory, const Manifest& manifest,
                            std::vector<std::string>& notices);

}  // namespace moerun
