#include "io/directory.h"

#include <dirent.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <memory>
#include <utility>

#include "io/durable_file.h"
#include "moerun/file_names.h"

namespace moerun {

namespace fs = std::filesystem;

Directory::Directory(fs::path path, Links links) : path_(std::move(path)) {
  const int no_links = links == Links::refused ? O_NOFOLLOW : 0;
  directory_ = FileDescriptor(
      uninterrupted([&] { return ::open(path_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC | no_links); }));
  if (!directory_) throw FileError("open", path_, errno);
}

bool Directory::has(const std::string& name) const {
  struct stat status = {};
  if (::fstatat(directory_.get(), name.c_str(), &status, AT_SYMLINK_NOFOLLOW) == 0) return true;
  if (errno != ENOENT) throw FileError("look at", path_of(name), errno);
  return false;
}

FileDescriptor Directory::open_with(const std::string& name, int flags) const {
  // O_NONBLOCK: opening a pipe does not wait; regular files take no notice of it.
  FileDescriptor file(uninterrupted([&] {
    return ::openat(directory_.get(), name.c_str(), flags | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0666);
  }));
  const int error = errno;
  struct stat status = {};
  if (!file && error == ELOOP)
    throw Error(fmt::format("{} is a symbolic link, which is not followed here", path_of(name).string()));
  if (!file) throw FileError((flags & O_CREAT) ? "create" : "open", path_of(name), error);
  if (::fstat(file.get(), &status) != 0) throw FileError("look at", path_of(name), errno);
  if (!S_ISREG(status.st_mode)) throw Error(fmt::format("{} is no regular file", path_of(name).string()));
  return file;
}

FileDescriptor Directory::open(const std::string& name) const { return open_with(name, O_RDONLY); }

FileDescriptor Directory::open_to_append(const std::string& name) const {
  return open_with(name, O_WRONLY | O_APPEND);
}

FileDescriptor Directory::create(const std::string& name) const {
  remove(name);
  return open_with(name, O_WRONLY | O_CREAT | O_EXCL);
}

FileDescriptor Directory::open_or_create(const std::string& name) const {
  return open_with(name, O_RDWR | O_CREAT);
}

std::string Directory::read(const std::string& name, uint64_t most_bytes) const {
  return read_file(open(name).get(), path_of(name), most_bytes);
}

void Directory::write_durably(const std::string& name, std::initializer_list<std::string_view> parts) const {
  write_to_temporary(name, parts, true);
  sync();
}

void Directory::replace(const std::string& name, std::string_view text) const {
  write_to_temporary(name, {text}, false);
}

void Directory::write_to_temporary(const std::string& name, std::initializer_list<std::string_view> parts,
                                   bool durably) const {
  const std::string temporary = name + kTemporarySuffix;
  const fs::path path = path_of(temporary);
  FileDescriptor file = create(temporary);
  try {
    for (const std::string_view part : parts) write_all(file.get(), part, path);
    if (durably) sync_file(file.get(), path);
    close_file(file, path);
    rename(temporary, name);
  } catch (const FileError&) {
    // Room for others on a full disk; the error at hand is the one that counts.
    ::unlinkat(directory_.get(), temporary.c_str(), 0);
    throw;
  }
}

void Directory::rename(const std::string& from, const std::string& to) const {
  const auto call = [&] { return ::renameat(directory_.get(), from.c_str(), directory_.get(), to.c_str()); };
  if (uninterrupted(call) != 0)
    throw FileError(fmt::format("rename {} to", path_of(from).string()), path_of(to), errno);
}

void Directory::rename_durably(const std::string& from, const std::string& to) const {
  rename(from, to);
  sync();
}

bool Directory::rename_new_durably(const std::string& from, const std::string& to) const {
  if (!rename_new(from, to)) return false;
  sync();
  return true;
}

bool Directory::rename_new(const std::string& from, const std::string& to) const {
  const int at = directory_.get();
  const auto rename = [&] { return ::renameat2(at, from.c_str(), at, to.c_str(), RENAME_NOREPLACE); };
  if (uninterrupted(rename) == 0) return true;
  if (errno == EEXIST) return false;
  // NFS and some others know no such rename, but hard links; a few know neither.
  if (errno == EINVAL || errno == ENOSYS || errno == ENOTSUP) {
    if (uninterrupted([&] { return ::linkat(at, from.c_str(), at, to.c_str(), 0); }) == 0) {
      remove(from);
      return true;
    }
    if (errno == EEXIST) return false;
    if (errno == EPERM || errno == ENOSYS || errno == ENOTSUP) {
      if (has(to)) return false;
      if (uninterrupted([&] { return ::renameat(at, from.c_str(), at, to.c_str()); }) == 0) return true;
    }
  }
  throw FileError(fmt::format("rename {} to", path_of(from).string()), path_of(to), errno);
}

bool Directory::remove(const std::string& name) const {
  if (uninterrupted([&] { return ::unlinkat(directory_.get(), name.c_str(), 0); }) == 0) return true;
  if (errno != ENOENT) throw FileError("remove", path_of(name), errno);
  return false;
}

void Directory::sync() const {
  // Some network file systems refuse fsync on a directory because their names are safe without it.
  if (uninterrupted([&] { return ::fsync(directory_.get()); }) != 0 && errno != EINVAL && errno != ENOTSUP)
    throw FileError("write to disk (fsync)", path_, errno);
}

std::vector<std::string> Directory::names() const {
  // A descriptor of its own, because reading moves its position.
  const int own =
      uninterrupted([&] { return ::openat(directory_.get(), ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC); });
  const std::unique_ptr<DIR, int (*)(DIR*)> listing(own >= 0 ? ::fdopendir(own) : nullptr, ::closedir);
  if (!listing) throw FileError("list", path_, errno);
  std::vector<std::string> names;
  for (;;) {
    errno = 0;
    const dirent* entry = ::readdir(listing.get());
    if (!entry && errno != 0) throw FileError("list", path_, errno);
    if (!entry) break;
    const std::string name = entry->d_name;
    if (name != "." && name != "..") names.push_back(name);
  }
  std::sort(names.begin(), names.end());
  return names;
}

bool is_link(const fs::path& path) {
  std::error_code ignored;
  return fs::is_symlink(fs::symlink_status(path, ignored));
}

}  // namespace moerun
