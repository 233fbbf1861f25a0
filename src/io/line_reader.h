#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/file_descriptor.h"
#include "io/content_sums.h"

namespace moerun {

/// The lines of a text file that have something in them. Ends of lines may be \n or \r\n, the last may lack
/// it, a byte order mark at the beginning is skipped (some editors write it, and no prompt means it); blank
/// lines are counted and passed over. Memory: one buffer, as long as the longest line so far.
///
/// It remembers a digest of each part that it reads, or compares with those of an earlier reading: then no
/// line comes out of a part that is another by now.
class LineReader {
 public:
  static constexpr size_t kMostBytes = size_t{64} << 20;  ///< of a line

  /// Throws BadInput when the file cannot be opened or is no regular file.
  explicit LineReader(const std::string& path);

  /// The next line without its end; it lives until the next call. False at the end of the file. A line beyond
  /// kMostBytes comes empty, with is_too_long(). Throws BadInput when reading fails, and Error when what is
  /// read is not what it was.
  bool next(std::string_view& line);
  bool is_too_long() const { return too_long_; }
  uint64_t number() const { return number_; }  ///< of the last line, from 1
  void rewind();

  /// Reads the rest, and says what the file holds.
  ContentSums finish();
  /// Begins again, comparing.
  void verify(std::shared_ptr<const ContentSums> sums);

  const std::string& path() const { return path_; }

 private:
  bool fill();
  size_t read_part();
  void note_part(uint64_t begin, std::string_view bytes);
  bool next_raw(std::string_view& line);
  [[noreturn]] void changed(uint64_t begin) const;

  std::string path_;
  FileDescriptor file_;
  std::vector<char> buffer_;
  size_t begin_ = 0, end_ = 0;  // what is read and not handed out
  uint64_t offset_ = 0;         // in the file, of what is read next
  bool at_end_ = false, too_long_ = false;
  uint64_t number_ = 0;
  ContentSums sums_;                             // of what was read since the beginning
  std::shared_ptr<const ContentSums> expected_;  // set: compare
  std::unique_ptr<Sha256> hash_;
};

}  // namespace moerun
