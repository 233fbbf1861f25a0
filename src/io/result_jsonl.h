#pragma once
#include <cstdint>
#include <filesystem>
#include <string>

#include "base/file_descriptor.h"
#include "io/content_sums.h"
#include "io/durable_file.h"
#include "moerun/record.h"

namespace moerun {

/// One line of results without its newline (docs/formats.md): floats have the fewest digits that give the
/// same float32 back; what is no finite number is null. Appends to `out`.
void append_result_line(const RowResult& result, std::string& out);

/// A file of lines in the making. Thread contract: one thread at a time. Throws FileError.
class JsonlResults {
 public:
  /// Makes the file anew.
  explicit JsonlResults(const std::filesystem::path& path);

  /// Adds the newline to what the caller put in line() since the last call.
  std::string& line() { return buffer_; }
  void end_line();
  /// Writes what is buffered, syncs and closes. Says what was written.
  WrittenFile finish();

 private:
  void write();

  std::filesystem::path path_;
  FileDescriptor file_;
  uint64_t bytes_ = 0;
  Sha256 sum_;
  std::string buffer_;
};

}  // namespace moerun
