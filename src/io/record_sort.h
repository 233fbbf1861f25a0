#pragma once
#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/file_descriptor.h"

namespace moerun {

/// Bytes that are written one after the other and read anywhere: in memory up to a limit, then in a file
/// without a name, which goes with the process. Throws FileError. Thread contract: one thread.
class Spool {
 public:
  /// `directory` is where the file is made, when it is.
  Spool(std::filesystem::path directory, uint64_t memory_bytes)
      : directory_(std::move(directory)), memory_bytes_(memory_bytes) {}

  uint64_t bytes() const { return bytes_; }
  void append(std::string_view data);
  /// Writes what append() has kept back; nothing is appended after it.
  void end();
  void read(char* out, uint64_t bytes, uint64_t offset) const;

 private:
  void flush();

  std::filesystem::path directory_;
  uint64_t memory_bytes_;
  std::string buffer_;  // all, or what is not in the file yet
  FileDescriptor file_;
  uint64_t bytes_ = 0;
};

/// A record and what it is sorted by.
struct KeyedRecord {
  std::string key, record;
};

/// Records of a spool, one after the other. The spool must outlive it.
class RecordReader {
 public:
  /// Reads [begin, end) of the spool, which hold whole records.
  RecordReader(const Spool& spool, uint64_t begin, uint64_t end);
  /// False at the end.
  bool next(KeyedRecord& out);

  static void put(std::string_view key, std::string_view record, std::string& out);

 private:
  std::string_view take(size_t bytes);

  const Spool* spool_;
  uint64_t at_, end_;
  std::string buffer_;
  size_t used_ = 0;
};

/// Sorts any number of records by their keys' bytes; records with equal keys stay in the order in which they
/// came. Memory is bounded: what is more goes to files without names in a directory. Thread contract: one
/// thread. Throws FileError.
class RecordSorter {
 public:
  RecordSorter(std::filesystem::path directory, uint64_t memory_bytes);
  ~RecordSorter();

  void add(std::string_view key, std::string_view record);
  /// No more come: from now on next() gives them in order.
  void finish();
  bool next(KeyedRecord& out);

 private:
  struct Entry {
    uint64_t offset;
    uint32_t key_bytes, record_bytes;
  };
  struct Run;

  std::string_view key_of(const Entry& entry) const;
  void sort();
  void write_run();
  bool later(size_t a, size_t b) const;

  std::filesystem::path directory_;
  uint64_t memory_bytes_;
  std::string data_;  // of what is in memory: a key, then its record
  std::vector<Entry> entries_;
  size_t next_entry_ = 0;
  std::unique_ptr<Spool> runs_;
  std::vector<uint64_t> run_ends_;           // in runs_
  std::vector<std::unique_ptr<Run>> merge_;  // by number
  std::vector<size_t> heap_;                 // of runs: the least key at the front
};

}  // namespace moerun
