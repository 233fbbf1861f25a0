#include "io/line_reader.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "moerun/error.h"

namespace moerun {
namespace {

constexpr size_t kReadBytes = size_t{1} << 20;
constexpr uint64_t kMostParts = 65536;

[[noreturn]] void cannot_read(const std::string& path, const std::string& why) {
  throw BadInput(fmt::format("{} cannot be read: {}", path, why));
}

bool is_blank(std::string_view line) { return line.find_first_not_of(" \t\r") == std::string_view::npos; }

}  // namespace

LineReader::LineReader(const std::string& path)
    : path_(path), file_(::open(path.c_str(), O_RDONLY | O_CLOEXEC)) {
  if (!file_) cannot_read(path_, std::strerror(errno));
  struct stat status {};
  if (fstat(file_.get(), &status) != 0) cannot_read(path_, std::strerror(errno));
  // It is read twice: once to check, once to run.
  if (!S_ISREG(status.st_mode)) cannot_read(path_, "it is no regular file");
  const auto bytes = static_cast<uint64_t>(std::max<off_t>(status.st_size, 0));
  sums_.part_bytes = (bytes / kMostParts / kReadBytes + 1) * kReadBytes;
  rewind();
}

void LineReader::rewind() {
  if (lseek(file_.get(), 0, SEEK_SET) != 0) cannot_read(path_, std::strerror(errno));
  begin_ = end_ = 0;
  offset_ = number_ = 0;
  at_end_ = too_long_ = false;
  sums_.begins.clear();
  sums_.digests.clear();
  hash_ = std::make_unique<Sha256>();
  while (end_ < 3 && fill()) {
  }
  if (std::string_view(buffer_.data(), end_).starts_with("\xEF\xBB\xBF")) begin_ = 3;
}

ContentSums LineReader::finish() {
  do {
    begin_ = end_;
  } while (fill());
  sums_.checksum = hash_->hex();
  return sums_;
}

void LineReader::verify(std::shared_ptr<const ContentSums> sums) {
  expected_ = std::move(sums);
  sums_.part_bytes = expected_->part_bytes;
  rewind();
}

void LineReader::changed(uint64_t begin) const {
  throw Error(fmt::format(
      "{} changed while the job ran: from byte {} on it is not what was checked at the start. Put back what "
      "it was, and the same command goes on; as it is now, it is another job's input",
      path_, begin));
}

void LineReader::note_part(uint64_t begin, std::string_view bytes) {
  hash_->update(bytes);
  const size_t part = sums_.digests.size();
  sums_.begins.push_back(begin);
  sums_.digests.push_back(hash_->digest());
  if (expected_ && (part >= expected_->digests.size() || sums_.digests[part] != expected_->digests[part]))
    changed(begin);
}

/// Reads a whole part into the buffer's end, or up to the end of the file; returns its bytes.
size_t LineReader::read_part() {
  size_t size = 0;
  while (size < sums_.part_bytes) {
    const ssize_t got = ::read(file_.get(), buffer_.data() + end_ + size, sums_.part_bytes - size);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) cannot_read(path_, std::strerror(errno));
    if (got == 0) break;
    size += static_cast<size_t>(got);
  }
  return size;
}

/// Reads more behind what is there; false at the end of the file.
bool LineReader::fill() {
  if (at_end_) return false;
  if (begin_ > 0) {
    std::copy(buffer_.begin() + static_cast<std::ptrdiff_t>(begin_),
              buffer_.begin() + static_cast<std::ptrdiff_t>(end_), buffer_.begin());
    end_ -= begin_;
    begin_ = 0;
  }
  if (buffer_.size() - end_ < sums_.part_bytes) buffer_.resize(end_ + std::max(sums_.part_bytes, end_));
  const size_t size = read_part();
  if (size > 0) note_part(offset_, {buffer_.data() + end_, size});
  // A file that was cut ends before the parts that it had.
  if (size == 0 && expected_ && sums_.digests.size() < expected_->digests.size()) changed(offset_);
  end_ += size;
  offset_ += size;
  at_end_ = size == 0;
  return !at_end_;
}

bool LineReader::next_raw(std::string_view& line) {
  too_long_ = false;
  size_t searched = begin_;  // no end of line before this
  while (true) {
    const char* from = buffer_.data() + searched;
    const void* found = end_ > searched ? std::memchr(from, '\n', end_ - searched) : nullptr;
    if (found || (at_end_ && end_ > begin_)) {
      const size_t stop =
          found ? static_cast<size_t>(static_cast<const char*>(found) - buffer_.data()) : end_;
      line = {buffer_.data() + begin_, stop - begin_};
      begin_ = std::min(stop + 1, end_);
      ++number_;
      too_long_ = too_long_ || line.size() > kMostBytes;
      return true;
    }
    if (at_end_) return false;
    if (end_ - begin_ > kMostBytes) {  // let go of what is read, but not of the fact that it is a line
      too_long_ = true;
      begin_ = end_ - 1;
    }
    const size_t unread = end_ - begin_;
    fill();
    searched = begin_ + unread;
  }
}

bool LineReader::next(std::string_view& line) {
  while (next_raw(line)) {
    if (!too_long_ && is_blank(line)) continue;
    if (too_long_) line = {};
    if (line.ends_with('\r')) line.remove_suffix(1);
    return true;
  }
  return false;
}

}  // namespace moerun
