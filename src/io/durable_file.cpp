#include "io/durable_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <system_error>

namespace moerun {

namespace fs = std::filesystem;

FileError::FileError(const std::string& doing, const fs::path& path, int os_error)
    : Error(fmt::format("cannot {} {}: {}", doing, path.string(), std::generic_category().message(os_error)),
            ExitCode::stopped),
      os_error_(os_error) {}

FileDescriptor open_file(const fs::path& path, int flags) {
  FileDescriptor file(::open(path.c_str(), flags | O_CLOEXEC, 0666));
  if (!file) throw FileError((flags & O_CREAT) ? "create" : "open", path, errno);
  return file;
}

void write_all(int fd, std::string_view data, const fs::path& path) {
  while (!data.empty()) {
    const ssize_t written = ::write(fd, data.data(), data.size());
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) throw FileError("write", path, written < 0 ? errno : ENOSPC);
    data.remove_prefix(static_cast<size_t>(written));
  }
}

void sync_file(int fd, const fs::path& path) {
  int result = 0;
  do result = ::fsync(fd);
  while (result != 0 && errno == EINTR);
  if (result != 0) throw FileError("write to disk (fsync)", path, errno);
}

void sync_directory(const fs::path& directory) {
  const FileDescriptor handle = open_file(directory, O_RDONLY | O_DIRECTORY);
  // Some network file systems refuse fsync on a directory because their names are safe without it.
  if (::fsync(handle.get()) != 0 && errno != EINVAL && errno != ENOTSUP)
    throw FileError("write to disk (fsync)", directory, errno);
}

void rename_durably(const fs::path& from, const fs::path& to) {
  if (::rename(from.c_str(), to.c_str()) != 0)
    throw FileError(fmt::format("rename {} to", from.string()), to, errno);
  sync_directory(directory_of(to));
}

void write_file_durably(const fs::path& path, const fs::path& temporary,
                        std::initializer_list<std::string_view> parts) {
  try {
    const FileDescriptor file = open_file(temporary, O_WRONLY | O_CREAT | O_TRUNC);
    for (const std::string_view part : parts) write_all(file.get(), part, temporary);
    sync_file(file.get(), temporary);
  } catch (const FileError&) {
    ::unlink(temporary.c_str());  // room for others on a full disk; the error at hand is the one that counts
    throw;
  }
  rename_durably(temporary, path);
}

std::string read_file(const fs::path& path) {
  const FileDescriptor file = open_file(path, O_RDONLY);
  struct stat status = {};
  if (::fstat(file.get(), &status) != 0) throw FileError("look at", path, errno);
  std::string data(static_cast<size_t>(status.st_size), '\0');
  read_at(file.get(), data.data(), data.size(), 0, path);
  return data;
}

void read_at(int fd, char* out, uint64_t bytes, uint64_t offset, const fs::path& path) {
  while (bytes > 0) {
    const ssize_t got = ::pread(fd, out, bytes, static_cast<off_t>(offset));
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) throw FileError("read", path, got < 0 ? errno : EIO);
    out += got;
    offset += static_cast<uint64_t>(got);
    bytes -= static_cast<uint64_t>(got);
  }
}

void make_directories(const std::filesystem::path& directory) {
  if (directory.empty() || std::filesystem::is_directory(directory)) return;
  // directory_of("a/b/") is "a/b"
  make_directories(directory_of(directory));
  if (::mkdir(directory.c_str(), 0777) != 0 && errno != EEXIST) throw FileError("make", directory, errno);
  sync_directory(directory_of(directory));
}

bool remove_file(const fs::path& path) {
  if (::unlink(path.c_str()) == 0) return true;
  if (errno != ENOENT) throw FileError("remove", path, errno);
  return false;
}

fs::path directory_of(const fs::path& path) {
  return path.has_parent_path() ? path.parent_path() : fs::path(".");
}

}  // namespace moerun
