#include "io/merge.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "io/durable_file.h"

namespace moerun {

namespace fs = std::filesystem;

/// Walks one segment's answers by row, a window of them in memory. The file is open only while a window is
/// read, so that thousands of segments need no more descriptors than one.
class SegmentMerge::Cursor {
 public:
  Cursor(const Directory& directory, const SegmentRecord& record, const std::string& run_id,
         uint64_t window_bytes)
      : directory_(directory),
        window_bytes_(window_bytes),
        name_(record.name),
        path_(directory.path_of(record.name)),
        num_rows_(record.rows),
        num_bytes_(record.bytes) {
    read_segment_entries(directory, record, run_id);  // checks them against the ledger
    fill();
  }

  uint64_t row() const { return entries_[in_window_].row; }
  bool done() const { return window_begin_ + in_window_ == num_rows_; }

  /// The answer at hand; goes on to the next.
  RowResult take() {
    RowResult result = unpack_row(answers_[in_window_]);
    if (result.row != row())
      throw Error(fmt::format("{} holds row {} where its entries say {}", path_.string(), result.row, row()));
    if (++in_window_ == entries_.size() && !done()) fill();
    return result;
  }

 private:
  static constexpr uint64_t kMostRows = 256;

  void fill() {
    window_begin_ += in_window_;
    in_window_ = 0;
    const FileDescriptor file = directory_.open(name_);
    entries_.resize(std::min(kMostRows, num_rows_ - window_begin_));
    read_at(file.get(), reinterpret_cast<char*>(entries_.data()), entries_.size() * sizeof(SegmentEntry),
            kSegmentHeaderBytes + window_begin_ * sizeof(SegmentEntry), path_);
    answers_.clear();
    uint64_t bytes = 0;
    for (const SegmentEntry& entry : entries_) {
      if (bytes > window_bytes_) break;
      bytes += entry.bytes;
      if (entry.offset > num_bytes_ || entry.bytes > num_bytes_ - entry.offset)
        throw Error(fmt::format("{} places row {} outside itself", path_.string(), entry.row));
      std::string& packed = answers_.emplace_back(entry.bytes, '\0');
      read_at(file.get(), packed.data(), packed.size(), entry.offset, path_);
      check_answer(entry, packed, path_);
    }
    entries_.resize(answers_.size());
  }

  const Directory& directory_;
  uint64_t window_bytes_;
  std::string name_;
  fs::path path_;
  uint64_t num_rows_, num_bytes_, window_begin_ = 0, in_window_ = 0;
  std::vector<SegmentEntry> entries_;  // of the window
  std::vector<std::string> answers_;   // packed, as entries_
};

namespace {
constexpr uint64_t kAllWindowsBytes = uint64_t{32} << 20;
constexpr auto kLaterRow = [](const auto& a, const auto& b) { return a->row() > b->row(); };
}  // namespace

SegmentMerge::SegmentMerge(const Directory& directory, std::vector<SegmentRecord> segments,
                           const std::string& run_id)
    : directory_(directory), run_id_(run_id), segments_(std::move(segments)) {
  // Rows that were put in an order lie in all segments: they may all be entered at once.
  window_bytes_ =
      std::clamp<uint64_t>(kAllWindowsBytes / std::max<size_t>(segments_.size(), 1), 4 << 10, 128 << 10);
  std::erase_if(segments_, [](const SegmentRecord& segment) { return segment.rows == 0; });
  std::sort(segments_.begin(), segments_.end(),
            [](const auto& a, const auto& b) { return a.first_row < b.first_row; });
}

SegmentMerge::~SegmentMerge() = default;

void SegmentMerge::enter_segments() {
  while (next_segment_ < segments_.size() &&
         (cursors_.empty() || segments_[next_segment_].first_row < cursors_.front()->row())) {
    cursors_.push_back(
        std::make_unique<Cursor>(directory_, segments_[next_segment_++], run_id_, window_bytes_));
    std::push_heap(cursors_.begin(), cursors_.end(), kLaterRow);
  }
}

bool SegmentMerge::next(RowResult& result) {
  enter_segments();
  if (cursors_.empty()) return false;
  std::pop_heap(cursors_.begin(), cursors_.end(), kLaterRow);
  result = cursors_.back()->take();
  if (cursors_.back()->done())
    cursors_.pop_back();
  else
    std::push_heap(cursors_.begin(), cursors_.end(), kLaterRow);
  return true;
}

}  // namespace moerun
