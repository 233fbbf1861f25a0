#include "io/durable_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <system_error>

#include "io/directory.h"

namespace moerun {

namespace fs = std::filesystem;

FileError::FileError(const std::string& doing, const fs::path& path, int os_error)
    : Error(fmt::format("cannot {} {}: {}", doing, path.string(), std::generic_category().message(os_error)),
            ExitCode::stopped),
      os_error_(os_error) {}

FileDescriptor open_file(const fs::path& path, int flags) {
  FileDescriptor file(uninterrupted([&] { return ::open(path.c_str(), flags | O_CLOEXEC, 0666); }));
  if (!file) throw FileError((flags & O_CREAT) ? "create" : "open", path, errno);
  return file;
}

void write_all(int fd, std::string_view data, const fs::path& path) {
  while (!data.empty()) {
    const ssize_t written = uninterrupted([&] { return ::write(fd, data.data(), data.size()); });
    if (written <= 0) throw FileError("write", path, written < 0 ? errno : ENOSPC);
    data.remove_prefix(static_cast<size_t>(written));
  }
}

void sync_file(int fd, const fs::path& path) {
  if (uninterrupted([&] { return ::fsync(fd); }) != 0) throw FileError("write to disk (fsync)", path, errno);
}

void close_file(FileDescriptor& file, const fs::path& path) {
  // Linux closes the descriptor also when it says EINTR, and another thread may have it by now.
  if (::close(file.release()) != 0 && errno != EINTR) throw FileError("close", path, errno);
}

void write_file_durably(const fs::path& path, std::initializer_list<std::string_view> parts) {
  Directory(directory_of(path), Directory::Links::followed).write_durably(path.filename(), parts);
}

void replace_file(const fs::path& path, std::string_view text) {
  Directory(directory_of(path), Directory::Links::followed).replace(path.filename(), text);
}

std::string read_file(const fs::path& path) {
  return read_file(open_file(path, O_RDONLY).get(), path, UINT64_MAX);
}

std::string read_file(int fd, const fs::path& path, uint64_t most_bytes) {
  struct stat status = {};
  if (::fstat(fd, &status) != 0) throw FileError("look at", path, errno);
  const auto bytes = static_cast<uint64_t>(status.st_size);
  if (bytes > most_bytes)
    throw Error(fmt::format("{} has {} bytes, and at most {} are read", path.string(), bytes, most_bytes));
  std::string data(bytes, '\0');
  read_at(fd, data.data(), data.size(), 0, path);
  return data;
}

void read_at(int fd, char* out, uint64_t bytes, uint64_t offset, const fs::path& path) {
  while (bytes > 0) {
    const ssize_t got = uninterrupted([&] { return ::pread(fd, out, bytes, static_cast<off_t>(offset)); });
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
  Directory(directory_of(directory), Directory::Links::followed).sync();
}

bool remove_file(const fs::path& path) {
  if (uninterrupted([&] { return ::unlink(path.c_str()); }) == 0) return true;
  if (errno != ENOENT) throw FileError("remove", path, errno);
  return false;
}

fs::path directory_of(const fs::path& path) {
  return path.has_parent_path() ? path.parent_path() : fs::path(".");
}

}  // namespace moerun
