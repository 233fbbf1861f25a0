#pragma once
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "io/directory.h"
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
// An answer of a row that asks for several holds them all, the second and further ones behind what a row with
// one has; behind that, where there are any, what chats consist of and prompts that are repeated.
//
// little-endian throughout. The ledger holds the SHA-256 of everything before the payload, and the entries
// hold their answers' CRC-32: so every byte is covered, and one answer can be checked by itself.

struct SegmentEntry {
  uint64_t row, offset;
  uint32_t bytes, crc32;
};
static_assert(sizeof(SegmentEntry) == 24);

/// What a file that claims to be a segment may say at most; what the program writes is far below.
inline constexpr uint64_t kMostSegmentRows = 1 << 24, kMostAnswerBytes = 1 << 30;
inline constexpr int32_t kMostTopLogprobs = 1 << 12;

/// Where the entries begin: the bytes of magic, run_id and num_rows.
inline constexpr uint64_t kSegmentHeaderBytes = 48;
inline constexpr std::string_view kSegmentMagic = "moerseg1";
inline constexpr size_t kRunIdBytes = 32;

/// What the columns of an output need to know about its rows.
struct RowTraits {
  uint64_t row_errors = 0;
  int32_t num_top_logprobs = 0, num_prompt_top_logprobs = 0;  ///< the most of any row
  bool logprobs = false, prompt_logprobs = false;
  bool prompt_is_greedy = false, several_answers = false;
  bool prompt_truncated = false;  ///< rows say how much of their prompts was dropped
  uint64_t num_answers = 0;

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

/// Packs one answer (the inverse of unpack_row; packed_row.cpp). Appends to `out`.
void pack_row(const RowResult& result, std::string& out);
/// Throws Error when `bytes` is no packed answer.
RowResult unpack_row(std::string_view bytes);

/// Throws Error when the parts of an answer do not fit each other, so that no output could hold it.
void check_result(const RowResult& result);

/// A segment in the making, in memory. Thread contract: one thread at a time.
class SegmentBuilder {
 public:
  /// Throws Error when no output could hold the answer.
  void append(const RowResult& result);
  bool empty() const { return entries_.empty(); }
  uint64_t num_rows() const { return entries_.size(); }
  uint64_t bytes() const { return payload_.size() + entries_.size() * sizeof(SegmentEntry); }

  /// Writes the segment to `directory`/`name`, durably, by way of a temporary name. Throws FileError.
  SegmentRecord write(const Directory& directory, const std::string& name, const std::string& run_id) const;

 private:
  std::vector<SegmentEntry> entries_;  // offsets count from the payload's beginning
  std::string payload_;
  RowTraits traits_;
};

/// Reads and checks a segment's header and entries, not its answers. Throws Error with what is wrong.
std::vector<SegmentEntry> read_segment_entries(const Directory& directory, const SegmentRecord& record,
                                               const std::string& run_id);

/// Throws Error naming row and file when `packed` does not have the entry's checksum.
void check_answer(const SegmentEntry& entry, std::string_view packed, const std::filesystem::path& path);

uint32_t crc32_of(std::string_view bytes);

}  // namespace moerun
