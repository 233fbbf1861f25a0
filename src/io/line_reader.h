#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "fault/file_descriptor.h"

namespace moerun {

/// The lines of a text file that have something in them. Ends of lines may be \n or \r\n, the last may lack
/// it, a byte order mark at the beginning is skipped (some editors write it, and no prompt means it); blank
/// lines are counted and passed over. Memory: one buffer, as long as the longest line so far.
class LineReader {
 public:
  static constexpr size_t kMostBytes = size_t{64} << 20;  ///< of a line

  /// Throws BadInput when the file cannot be opened or is no regular file.
  explicit LineReader(const std::string& path);

  /// The next line without its end; it lives until the next call. False at the end of the file. A line beyond
  /// kMostBytes comes empty, with is_too_long(). Throws BadInput when reading fails.
  bool next(std::string_view& line);
  bool is_too_long() const { return too_long_; }
  uint64_t number() const { return number_; }  ///< of the last line, from 1
  void rewind();

  const std::string& path() const { return path_; }

 private:
  bool fill();
  bool next_raw(std::string_view& line);

  std::string path_;
  FileDescriptor file_;
  std::vector<char> buffer_;
  size_t begin_ = 0, end_ = 0;  // what is read and not handed out
  bool at_end_ = false, too_long_ = false;
  uint64_t number_ = 0;
};

}  // namespace moerun
