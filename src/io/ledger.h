#pragma once
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/file_descriptor.h"
#include "io/segment.h"

namespace moerun {

// The ledger names the segments that count, one a line, oldest first:
//
//   CRC32 {"name": "segment-000001", "bytes": ..., "rows": ..., "first_row": ..., "last_row": ...,
//          "sha256": ..., "row_errors": ..., "num_top_logprobs": ..., "logprobs": ..., "prompt_logprobs":
//          ..., "prompt_is_greedy": ..., "num_prompt_top_logprobs": ..., "prompt_truncated": ...,
//          "answers": ...}
//
// CRC32 is that of the JSON text, in 8 hex digits. A line is appended and synced after the segment that it
// names is safe, so a line that is whole names a segment that is whole; a death between the two leaves a line
// that is torn or missing, and a segment that does not count.

/// What a ledger's bytes say.
struct LedgerContents {
  std::vector<SegmentRecord> segments;
  bool torn = false;              ///< the last line has no end or no checksum: a death while it was written
  std::vector<uint64_t> damaged;  ///< numbers of lines, from 1, whose checksum is wrong though others follow
};
LedgerContents parse_ledger(std::string_view bytes);

std::string ledger_line(const SegmentRecord& segment);  ///< with its newline

/// The ledger of a run that goes on. Thread contract: one thread at a time.
class Ledger {
 public:
  /// Opens for appending what write_ledger wrote to `directory`.
  explicit Ledger(const Directory& directory);
  /// The segment counts once this returns. Throws FileError; the line may then be there in part.
  void append(const SegmentRecord& segment);

 private:
  std::filesystem::path path_;
  FileDescriptor file_;
};

/// Makes or replaces the ledger of `directory` with one that names `segments`, durably.
void write_ledger(const Directory& directory, const std::vector<SegmentRecord>& segments);

inline constexpr const char* kLedgerName = "ledger";
inline constexpr uint64_t kMostLedgerBytes = uint64_t{256} << 20;  ///< a million segments

/// "segment-000012". A segment has no other name, so that no ledger can lead out of its directory.
std::string segment_name(uint64_t number);
/// The number in such a name; none for any other.
std::optional<uint64_t> segment_number(std::string_view name);

}  // namespace moerun
