#include "io/segment_scan.h"

#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "io/durable_file.h"
#include "text/checksum.h"

namespace moerun {

namespace fs = std::filesystem;

namespace {

/// Reads parts of a file that mostly lie one after the other.
class Window {
 public:
  Window(int fd, uint64_t file_bytes, const fs::path& path) : fd_(fd), file_bytes_(file_bytes), path_(path) {}

  /// `offset` + `bytes` lie within the file. Valid until the next call.
  std::string_view at(uint64_t offset, uint64_t bytes) {
    if (offset < begin_ || offset + bytes > begin_ + data_.size()) {
      begin_ = offset;
      data_.resize(std::min(std::max(bytes, kBytes), file_bytes_ - offset));
      read_at(fd_, data_.data(), data_.size(), offset, path_);
    }
    return std::string_view(data_).substr(offset - begin_, bytes);
  }

 private:
  static constexpr uint64_t kBytes = 1 << 20;
  int fd_;
  uint64_t file_bytes_, begin_ = 0;
  const fs::path& path_;
  std::string data_;
};

class Scanner {
 public:
  Scanner(const Directory& directory, const std::string& name, const SegmentRecord* said)
      : path_(directory.path_of(name)), file_(directory.open(name)), said_(said) {
    struct stat status = {};
    if (::fstat(file_.get(), &status) != 0) throw FileError("look at", path_, errno);
    out.record.name = name;
    out.record.bytes = static_cast<uint64_t>(status.st_size);
    if (said && out.record.bytes != said->bytes)
      note("{} has {} bytes where the ledger says {}", path_.string(), out.record.bytes, said->bytes);
  }

  /// Reads the head. Throws Error when no entry of it can be trusted.
  void read_head(const std::string& run_id) {
    std::string head(kSegmentHeaderBytes, '\0');
    if (out.record.bytes < head.size()) throw Error(fmt::format("{} has no whole head", path_.string()));
    read_at(file_.get(), head.data(), head.size(), 0, path_);
    if (!head.starts_with(kSegmentMagic) || head.compare(kSegmentMagic.size(), kRunIdBytes, run_id) != 0)
      throw Error(fmt::format("{} is not a segment of run {}", path_.string(), run_id));
    std::memcpy(&out.num_rows, head.data() + kSegmentMagic.size() + kRunIdBytes, sizeof out.num_rows);
    if (said_ && out.num_rows != said_->rows)
      note("{} has {} rows where the ledger says {}", path_.string(), out.num_rows, said_->rows);
    const uint64_t fits = (out.record.bytes - head.size()) / sizeof(SegmentEntry);
    // The ledger's lines have checksums; where it names no such file, the answers' own must do.
    const uint64_t said = said_ ? said_->rows : out.num_rows;
    const uint64_t rows = std::min({said, fits, kMostSegmentRows});
    if (rows < said) note("{} is too small for its {} rows", path_.string(), said);
    entries_.resize(rows);
    head.resize(kSegmentHeaderBytes + rows * sizeof(SegmentEntry));
    read_at(file_.get(), head.data() + kSegmentHeaderBytes, head.size() - kSegmentHeaderBytes,
            kSegmentHeaderBytes, path_);
    if (rows > 0)
      std::memcpy(entries_.data(), head.data() + kSegmentHeaderBytes, rows * sizeof(SegmentEntry));
    out.record.sha256 = sha256_hex(head);
    if (said_ && out.record.sha256 != said_->sha256)
      note("the head of {} does not have the ledger's checksum", path_.string());
    out.ascending = std::is_sorted(entries_.begin(), entries_.end(),
                                   [](const auto& a, const auto& b) { return a.row <= b.row; });
    if (!out.ascending) note("the rows of {} are not each there once and in order", path_.string());
  }

  void read_answers(const std::function<void(const SegmentEntry&, std::string_view)>& visit) {
    std::sort(entries_.begin(), entries_.end(),
              [](const auto& a, const auto& b) { return a.offset < b.offset; });
    Window window(file_.get(), out.record.bytes, path_);
    for (const SegmentEntry& entry : entries_) try {
        if (entry.offset < kSegmentHeaderBytes || entry.bytes > kMostAnswerBytes ||
            entry.bytes > out.record.bytes || entry.offset > out.record.bytes - entry.bytes)
          throw Error(fmt::format("{} places row {} outside itself", path_.string(), entry.row));
        const std::string_view packed = window.at(entry.offset, entry.bytes);
        check_answer(entry, packed, path_);
        const RowResult result = unpack_row(packed);
        check_result(result);
        if (result.row != entry.row)
          throw Error(
              fmt::format("{} holds row {} where its head says {}", path_.string(), result.row, entry.row));
        take(result);
        visit(entry, packed);
      } catch (const FileError&) {
        throw;
      } catch (const Error& error) {
        note("{}", error.what());
      }
  }

  SegmentScan out;

 private:
  template <typename... Values>
  void note(fmt::format_string<Values...> form, Values&&... values) {
    if (out.damage.empty()) out.damage = fmt::format(form, std::forward<Values>(values)...);
  }
  void take(const RowResult& result) {
    SegmentRecord& record = out.record;
    record.first_row = out.num_sound == 0 ? result.row : std::min(record.first_row, result.row);
    record.last_row = std::max(record.last_row, result.row);
    record.rows = ++out.num_sound;
    record.traits.add(result);
  }

  fs::path path_;
  FileDescriptor file_;
  const SegmentRecord* said_;
  std::vector<SegmentEntry> entries_;
};

}  // namespace

SegmentScan scan_segment(const Directory& directory, const std::string& name, const SegmentRecord* said,
                         const std::string& run_id,
                         const std::function<void(const SegmentEntry&, std::string_view)>& visit) {
  std::optional<Scanner> scanner;
  std::string why;
  try {
    scanner.emplace(directory, name, said);
    scanner->read_head(run_id);
    scanner->read_answers(visit);
  } catch (const Error& error) {
    why = error.what();
  }
  SegmentScan out = scanner ? scanner->out : SegmentScan();
  out.record.name = name;
  if (out.damage.empty()) out.damage = why;
  return out;
}

}  // namespace moerun
