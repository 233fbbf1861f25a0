#pragma once
#include <cstdint>
#include <filesystem>
#include <string>

#include "fault/file_descriptor.h"
#include "moerun/record.h"

namespace moerun {

/// One line of results without its newline (README, "Output"): floats have the fewest digits that give the
/// same float32 back; what is no finite number is null. Appends to `out`.
void append_result_line(const RowResult& result, std::string& out);

/// A file of lines in the making. Thread contract: one thread at a time. Throws FileError.
class JsonlResults {
 public:
  explicit JsonlResults(const std::filesystem::path& path);

  /// Adds the newline to what the caller put in line() since the last call.
  std::string& line() { return buffer_; }
  void end_line();
  /// Writes what is buffered and syncs.
  void finish();

 private:
  std::filesystem::path path_;
  FileDescriptor file_;
  std::string buffer_;
};

}  // namespace moerun
