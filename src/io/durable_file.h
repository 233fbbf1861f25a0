#pragma once
#include <cerrno>
#include <cstdint>
#include <filesystem>
#include <initializer_list>
#include <string>
#include <string_view>

#include "base/file_descriptor.h"
#include "moerun/error.h"

namespace moerun {

/// A call to the file system that failed; what() names the call's purpose, the path and the system's reason.
/// The job that meets it while running ends as stopped: what was sealed stays, and the same command goes on.
class FileError : public Error {
 public:
  FileError(const std::string& doing, const std::filesystem::path& path, int os_error);
  int os_error() const { return os_error_; }

 private:
  int os_error_;
};

/// What a file that was written holds.
struct WrittenFile {
  uint64_t bytes = 0;
  std::string sha256;  ///< hex
  bool operator==(const WrittenFile&) const = default;
};

/// What `call` returns, called again while a signal interrupts it. Not for close(2), which closes all the
/// same.
template <typename Call>
auto uninterrupted(const Call& call) -> decltype(call()) {
  for (;;)
    if (const auto result = call(); result >= 0 || errno != EINTR) return result;
}

// A file is safe when its bytes are on disk (fsync of the file) and so is its name (fsync of the directory).
// Order matters: bytes first, then the name, then whatever refers to the name. All throw FileError.

/// Follows links: for what the user names. Files of the run directory are opened by Directory.
FileDescriptor open_file(const std::filesystem::path& path, int flags);
void write_all(int fd, std::string_view data, const std::filesystem::path& path);
void sync_file(int fd, const std::filesystem::path& path);
/// Closes a file that was written. Some file systems say only here that bytes were lost.
void close_file(FileDescriptor& file, const std::filesystem::path& path);

/// Writes `parts` one after the other to a new file `path`.tmp, syncs, and renames it to `path` for good,
/// replacing what has that name. On failure nothing is left under the temporary name.
void write_file_durably(const std::filesystem::path& path, std::initializer_list<std::string_view> parts);

/// Directory::replace of the directory that holds it.
void replace_file(const std::filesystem::path& path, std::string_view text);

/// The whole file.
std::string read_file(const std::filesystem::path& path);
/// All that is left of an open file from its beginning.
/// Throws Error where it has more than `most_bytes`.
std::string read_file(int fd, const std::filesystem::path& path, uint64_t most_bytes);
/// Reads `bytes` at `offset`; throws FileError when the file ends before.
void read_at(int fd, char* out, uint64_t bytes, uint64_t offset, const std::filesystem::path& path);

/// Makes a directory and those on the way to it that are not there, durably.
void make_directories(const std::filesystem::path& directory);

/// Removes a file or link if it is there; false when it was not.
bool remove_file(const std::filesystem::path& path);

/// The directory that holds `path`, "." for a bare name.
std::filesystem::path directory_of(const std::filesystem::path& path);

}  // namespace moerun
