#include "io/record_sort.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <string>

#include "io/durable_file.h"
#include "moerun/error.h"

namespace moerun {

namespace fs = std::filesystem;

namespace {

constexpr size_t kWriteBytes = 1 << 20;
constexpr uint64_t kReadBytes = 128 << 10;

/// A file that nobody else sees.
FileDescriptor unnamed_file(const fs::path& directory) {
  const int unnamed = uninterrupted(
      [&] { return ::open(directory.c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC, S_IRUSR | S_IWUSR); });
  if (unnamed >= 0) return FileDescriptor(unnamed);
  // Network file systems know no such files: one with a name, which it loses at once.
  std::string name = (directory / ".order-XXXXXX").string();
  const int named = ::mkostemp(name.data(), O_CLOEXEC);
  if (named < 0) throw FileError("make a file in", directory, errno);
  FileDescriptor file(named);
  ::unlink(name.c_str());
  return file;
}

}  // namespace

void Spool::append(std::string_view data) {
  buffer_ += data;
  bytes_ += data.size();
  if (!file_ && bytes_ > memory_bytes_) file_ = unnamed_file(directory_);
  if (file_ && buffer_.size() >= kWriteBytes) flush();
}

void Spool::flush() {
  write_all(file_.get(), buffer_, directory_);
  buffer_.clear();
}

void Spool::end() {
  if (file_) flush();
}

void Spool::read(char* out, uint64_t bytes, uint64_t offset) const {
  if (file_) return read_at(file_.get(), out, bytes, offset, directory_);
  std::memcpy(out, buffer_.data() + offset, bytes);
}

RecordReader::RecordReader(const Spool& spool, uint64_t begin, uint64_t end)
    : spool_(&spool), at_(begin), end_(end) {}

void RecordReader::put(std::string_view key, std::string_view record, std::string& out) {
  for (const std::string_view part : {key, record}) {
    const auto bytes = static_cast<uint32_t>(part.size());
    out.append(reinterpret_cast<const char*>(&bytes), sizeof bytes);
  }
  out += key;
  out += record;
}

std::string_view RecordReader::take(size_t bytes) {
  if (buffer_.size() - used_ < bytes) {
    buffer_.erase(0, used_);
    used_ = 0;
    const size_t kept = buffer_.size();
    const uint64_t more = std::min(std::max<uint64_t>(kReadBytes, bytes - kept), end_ - at_);
    buffer_.resize(kept + more);
    spool_->read(buffer_.data() + kept, more, at_);
    at_ += more;
    if (buffer_.size() < bytes) throw Error("a record that was put in order ends before its end");
  }
  used_ += bytes;
  return std::string_view(buffer_).substr(used_ - bytes, bytes);
}

bool RecordReader::next(KeyedRecord& out) {
  if (at_ == end_ && used_ == buffer_.size()) return false;
  uint32_t bytes[2];
  std::memcpy(bytes, take(sizeof bytes).data(), sizeof bytes);
  const std::string_view both = take(size_t{bytes[0]} + bytes[1]);
  out.key = both.substr(0, bytes[0]);
  out.record = both.substr(bytes[0]);
  return true;
}

struct RecordSorter::Run {
  RecordReader reader;
  KeyedRecord head;
};

RecordSorter::RecordSorter(fs::path directory, uint64_t memory_bytes)
    : directory_(std::move(directory)), memory_bytes_(memory_bytes) {}

RecordSorter::~RecordSorter() = default;

std::string_view RecordSorter::key_of(const Entry& entry) const {
  return std::string_view(data_).substr(entry.offset, entry.key_bytes);
}

void RecordSorter::add(std::string_view key, std::string_view record) {
  const uint64_t bytes = key.size() + record.size();
  if (!entries_.empty() && data_.size() + bytes + entries_.size() * sizeof(Entry) > memory_bytes_)
    write_run();
  entries_.push_back({data_.size(), static_cast<uint32_t>(key.size()), static_cast<uint32_t>(record.size())});
  data_ += key;
  data_ += record;
}

void RecordSorter::sort() {
  std::stable_sort(entries_.begin(), entries_.end(),
                   [&](const Entry& a, const Entry& b) { return key_of(a) < key_of(b); });
}

void RecordSorter::write_run() {
  sort();
  if (!runs_) runs_ = std::make_unique<Spool>(directory_, 0);
  std::string packed;
  for (const Entry& entry : entries_) {
    packed.clear();
    RecordReader::put(key_of(entry),
                      std::string_view(data_).substr(entry.offset + entry.key_bytes, entry.record_bytes),
                      packed);
    runs_->append(packed);
  }
  run_ends_.push_back(runs_->bytes());
  entries_.clear();
  data_.clear();
}

bool RecordSorter::later(size_t a, size_t b) const {
  const int order = merge_[a]->head.key.compare(merge_[b]->head.key);
  return order != 0 ? order > 0 : a > b;
}

void RecordSorter::finish() {
  if (!runs_) return sort();
  write_run();
  data_.shrink_to_fit();
  runs_->end();
  for (size_t i = 0; i < run_ends_.size(); ++i) {
    merge_.push_back(std::make_unique<Run>(Run{{*runs_, i == 0 ? 0 : run_ends_[i - 1], run_ends_[i]}, {}}));
    if (merge_.back()->reader.next(merge_.back()->head)) heap_.push_back(i);
  }
  std::make_heap(heap_.begin(), heap_.end(), [&](size_t a, size_t b) { return later(a, b); });
}

bool RecordSorter::next(KeyedRecord& out) {
  if (!runs_) {
    if (next_entry_ == entries_.size()) return false;
    const Entry& entry = entries_[next_entry_++];
    out.key = key_of(entry);
    out.record.assign(data_, entry.offset + entry.key_bytes, entry.record_bytes);
    return true;
  }
  if (heap_.empty()) return false;
  const auto by_key = [&](size_t a, size_t b) { return later(a, b); };
  std::pop_heap(heap_.begin(), heap_.end(), by_key);
  Run& run = *merge_[heap_.back()];
  std::swap(out, run.head);
  if (run.reader.next(run.head))
    std::push_heap(heap_.begin(), heap_.end(), by_key);
  else
    heap_.pop_back();
  return true;
}

}  // namespace moerun
