#pragma once
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "moerun/record.h"

namespace moerun {

// A segment is a batch of answers in one file that is written once:
//
//   char     magic[8]      "moerseg1"
//   char     run_id[32]    of the run directory that it belongs to
//   uint64   num_rows
//   entry    [num_rows]    uint64 row, uint64 offset, uint32 bytes, uint32 crc32; ascending by row
//   char     payload[]     the rows' answers; offsets count from the file's beginning
//
// little-endian throughout. The ledger holds the SHA-256 of everything before the payload, and the entries
// hold their answers' CRC-32: so every byte is covered, and one answer can be checked by itself.

struct SegmentEntry {
  uint64_t row, offset;
  uint32_t bytes, crc32;
};
static_assert(sizeof(SegmentEntry) == 24);

/// Where the entries begin: the bytes of magic, run_id and num_rows.
inline constexpr uint64_t kSegmentHeaderBytes = 48;

/// What the columns of an output need to know about its rows.
struct RowTraits {
  uint64_t row_errors = 0;
  int32_t num_top_logprobs = 0;  ///< the most of any row
  bool logprobs = false, prompt_logprobs = false;

  void add(const RowResult& result);
  void add(const RowTraits& others);
};

/// What the ledger says about a segment.
struct SegmentRecord {
  std::string name;
  uint64_t bytes = 0, rows = 0;
  uint64_t first_row = 0, last_row = 0;
  std::string sha256;  ///< of header and entries
  RowTraits traits;
};

/// Packs one answer (the inverse of unpack_row). Appends to `out`.
void pack_row(const RowResult& result, std::string& out);
/// Throws Error when `bytes` is no packed answer.
RowResult unpack_row(std::string_view bytes);

/// A segment in the making, in memory. Thread contract: one thread at a time.
class SegmentBuilder {
 public:
  void append(const RowResult& result);
  bool empty() const { return entries_.empty(); }
  uint64_t num_rows() const { return entries_.size(); }
  uint64_t bytes() const { return payload_.size() + entries_.size() * sizeof(SegmentEntry); }

  /// Writes the segment to `directory`/`name`, durably, by way of a temporary name. Throws FileError.
  SegmentRecord write(const std::filesystem::path& directory, const std::string& name,
                      const std::string& run_id) const;

 private:
  std::vector<SegmentEntry> entries_;  // offsets count from the payload's beginning
  std::string payload_;
  RowTraits traits_;
};

/// Reads and checks a segment's header and entries, not its answers. Throws Error with what is wrong.
std::vector<SegmentEntry> read_segment_entries(const std::filesystem::path& directory,
                                               const SegmentRecord& record, const std::string& run_id);

/// Reads and checks every byte of a segment; returns its entries. Throws Error with what is wrong.
std::vector<SegmentEntry> verify_segment(const std::filesystem::path& directory, const SegmentRecord& record,
                                         const std::string& run_id);

/// Throws Error naming row and file when `packed` does not have the entry's checksum.
void check_answer(const SegmentEntry& entry, std::string_view packed, const std::filesystem::path& path);

uint32_t crc32_of(std::string_view bytes);

}  // namespace moerun
