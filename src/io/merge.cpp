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
         uint64_t window_bytes, const PassOver& pass_over)
      : directory_(directory),
        pass_over_(pass_over),
        window_bytes_(window_bytes),
        name_(record.name),
        path_(directory.path_of(record.name)),
        num_rows_(record.rows),
        num_bytes_(record.bytes) {
    read_segment_entries(directory, record, run_id);  // checks them against the ledger
    fill();
  }

  uint64_t row() const { return entries_[in_window_].row; }
  bool done() const { return in_window_ == entries_.size(); }

  /// The answer at hand; goes on to the next.
  RowResult take() {
    RowResult result = unpack_row(answers_[in_window_]);
    if (result.row != row())
      throw Error(fmt::format("{} holds row {} where its entries say {}", path_.string(), result.row, row()));
    ++in_window_;
    fill();
    return result;
  }

 private:
  static constexpr uint64_t kMostRows = 256;

  /// An answer that is not damaged, if one is left.
  void fill() {
    while (done() && next_ < num_rows_) read_window();
  }

  void read_window() {
    const FileDescriptor file = directory_.open(name_);
    std::vector<SegmentEntry> entries(std::min(kMostRows, num_rows_ - next_));
    read_at(file.get(), reinterpret_cast<char*>(entries.data()), entries.size() * sizeof(SegmentEntry),
            kSegmentHeaderBytes + next_ * sizeof(SegmentEntry), path_);
    in_window_ = 0;
    entries_.clear();
    answers_.clear();
    uint64_t bytes = 0;
    for (const SegmentEntry& entry : entries) {
      if (bytes > window_bytes_) break;
      bytes += entry.bytes;
      ++next_;
      try {
        answers_.push_back(answer_at(file.get(), entry));
        entries_.push_back(entry);
      } catch (const Error& damage) {
        if (!pass_over_ || !pass_over_(damage, 1)) throw;
      }
    }
  }

  std::string answer_at(int file, const SegmentEntry& entry) const {
    if (entry.offset > num_bytes_ || entry.bytes > num_bytes_ - entry.offset)
      throw Error(fmt::format("{} places row {} outside itself", path_.string(), entry.row));
    std::string packed(entry.bytes, '\0');
    read_at(file, packed.data(), packed.size(), entry.offset, path_);
    check_answer(entry, packed, path_);
    return packed;
  }

  const Directory& directory_;
  const PassOver& pass_over_;
  uint64_t window_bytes_;
  std::string name_;
  fs::path path_;
  uint64_t num_rows_, num_bytes_;
  uint64_t next_ = 0, in_window_ = 0;  // the first behind the window, the one at hand within it
  std::vector<SegmentEntry> entries_;  // of the window, but those that are passed over
  std::vector<std::string> answers_;   // packed, as entries_
};

namespace {
constexpr uint64_t kAllWindowsBytes = uint64_t{32} << 20;
constexpr auto kLaterRow = [](const auto& a, const auto& b) { return a->row() > b->row(); };
}  // namespace

SegmentMerge::SegmentMerge(const Directory& directory, std::vector<SegmentRecord> segments,
                           const std::string& run_id, PassOver pass_over)
    : directory_(directory),
      run_id_(run_id),
      pass_over_(std::move(pass_over)),
      segments_(std::move(segments)) {
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
    const SegmentRecord& segment = segments_[next_segment_++];
    try {
      auto cursor = std::make_unique<Cursor>(directory_, segment, run_id_, window_bytes_, pass_over_);
      if (cursor->done()) continue;
      cursors_.push_back(std::move(cursor));
      std::push_heap(cursors_.begin(), cursors_.end(), kLaterRow);
    } catch (const Error& damage) {
      if (!pass_over_ || !pass_over_(damage, segment.rows)) throw;
    }
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
