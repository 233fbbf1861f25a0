#pragma once
#include <cstdint>
#include <filesystem>
#include <initializer_list>
#include <string>
#include <string_view>

#include "fault/file_descriptor.h"
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

// A file is safe when its bytes are on disk (fsync of the file) and so is its name (fsync of the directory).
// Order matters: bytes first, then the name, then whatever refers to the name. All throw FileError.

FileDescriptor open_file(const std::filesystem::path& path, int flags);
void write_all(int fd, std::string_view data, const std::filesystem::path& path);
void sync_file(int fd, const std::filesystem::path& path);
void sync_directory(const std::filesystem::path& directory);

/// Gives `from`, whose bytes are synced, the name `to` for good, replacing what has it.
void rename_durably(const std::filesystem::path& from, const std::filesystem::path& to);

/// Writes `parts` one after the other to `temporary`, syncs, and renames to `path`. On failure nothing is
/// left under the temporary name.
void write_file_durably(const std::filesystem::path& path, const std::filesystem::path& temporary,
                        std::initializer_list<std::string_view> parts);

/// The whole file.
std::string read_file(const std::filesystem::path& path);
/// Reads `bytes` at `offset`; throws FileError when the file ends before.
void read_at(int fd, char* out, uint64_t bytes, uint64_t offset, const std::filesystem::path& path);

/// Makes a directory and those on the way to it that are not there, durably.
void make_directories(const std::filesystem::path& directory);

/// Removes a file if it is there; false when it was not.
bool remove_file(const std::filesystem::path& path);

/// The directory that holds `path`, "." for a bare name.
std::filesystem::path directory_of(const std::filesystem::path& path);

}  // namespace moerun
