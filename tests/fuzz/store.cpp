#include "io/ledger.h"
#include "io/segment_scan.h"
#include "tests/fuzz/harness.h"
#include "text/checksum.h"

#include <fmt/format.h>

#include <cstring>

namespace moerun::fuzz {

namespace {

/// The lines with their right checksums, so that what lies behind those is reached.
std::string signed_ledger(std::string_view bytes) {
  constexpr size_t kChecksum = 9;  // eight digits and a space
  std::string out;
  while (!bytes.empty()) {
    const std::string_view line = take_until(bytes, '\n');
    const std::string_view text = line.substr(std::min(kChecksum, line.size()));
    out += fmt::format("{:08x} {}\n", crc32_of(text), text);
  }
  return out;
}

/// The segment with the right checksum of each answer that lies in it.
std::string signed_segment(std::string_view bytes) {
  std::string out(bytes);
  for (size_t at = kSegmentHeaderBytes; at + sizeof(SegmentEntry) <= out.size(); at += sizeof(SegmentEntry)) {
    SegmentEntry entry;
    std::memcpy(&entry, out.data() + at, sizeof entry);
    if (entry.offset > out.size() || entry.bytes > out.size() - entry.offset) break;
    entry.crc32 = crc32_of(std::string_view(out).substr(entry.offset, entry.bytes));
    std::memcpy(out.data() + at, &entry, sizeof entry);
  }
  return out;
}

/// What is read from a ledger, written again, reads the same.
void check_ledger(std::string_view bytes) {
  const LedgerContents contents = parse_ledger(bytes);
  std::string again;
  for (const SegmentRecord& segment : contents.segments) again += ledger_line(segment);
  const LedgerContents second = parse_ledger(again);
  check(!second.torn && second.damaged.empty() && second.segments.size() == contents.segments.size(),
        "a ledger of whole lines is whole");
}

/// A segment whose ledger line has the right sizes and checksum, so that what lies behind them is reached,
/// and one without a line; each of its sound answers packs to the bytes that it was unpacked from.
void check_segment(std::string_view bytes) {
  write_scratch("segment-000001", bytes);
  SegmentRecord record{.name = "segment-000001", .bytes = bytes.size()};
  const std::string_view run_id = bytes.size() >= 40 ? bytes.substr(8, 32) : std::string_view();
  if (bytes.size() >= kSegmentHeaderBytes) bytes.copy(reinterpret_cast<char*>(&record.rows), 8, 40);
  if (record.rows <= bytes.size() / sizeof(SegmentEntry))
    record.sha256 = sha256_hex(bytes.substr(0, kSegmentHeaderBytes + record.rows * sizeof(SegmentEntry)));
  const Directory directory(scratch(), Directory::Links::followed);
  for (const SegmentRecord* said :
       {static_cast<const SegmentRecord*>(&record), static_cast<const SegmentRecord*>(nullptr)})
    scan_segment(directory, record.name, said, std::string(run_id),
                 [](const SegmentEntry& entry, std::string_view packed) {
                   std::string again;
                   pack_row(unpack_row(packed), again);
                   check(again.size() == packed.size() && packed.size() == entry.bytes,
                         "an answer packs to as many bytes as it was read from");
                 });
}

}  // namespace

/// A ledger as it is, and with the right checksums.
void read_ledger(std::string_view bytes) {
  check_ledger(bytes);
  check_ledger(signed_ledger(bytes));
}

/// A segment as it is, and with the right checksums of its answers.
void read_segment(std::string_view bytes) {
  check_segment(bytes);
  check_segment(signed_segment(bytes));
}

/// A packed answer by itself, without checksums.
void read_packed_answer(std::string_view bytes) {
  std::string again;
  pack_row(unpack_row(bytes), again);
  check(again.size() == bytes.size(), "an answer packs to as many bytes as it was read from");
}

}  // namespace moerun::fuzz
