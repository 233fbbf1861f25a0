#include "io/run_directory.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <nlohmann/json.hpp>
#include <random>
#include <set>

#include "io/durable_file.h"
#include "io/fingerprint.h"

namespace moerun {

namespace fs = std::filesystem;

namespace {

constexpr int kFormat = 1;

std::string holder_of(int lock) {
  std::array<char, 256> text{};
  const ssize_t bytes = ::pread(lock, text.data(), text.size(), 0);
  std::string holder(text.data(), static_cast<size_t>(std::max<ssize_t>(bytes, 0)));
  return holder.substr(0, holder.find('\n'));
}

std::string this_process() {
  std::array<char, 256> host{};
  ::gethostname(host.data(), host.size() - 1);
  return fmt::format("process {} on {}\n", ::getpid(), host.data());
}

// Whether the open file is still what the path names: another job may have removed its directory between our
// open and our flock.
bool still_there(int fd, const fs::path& path) {
  struct stat opened = {}, named = {};
  return ::fstat(fd, &opened) == 0 && ::stat(path.c_str(), &named) == 0 && opened.st_ino == named.st_ino &&
         opened.st_dev == named.st_dev;
}

std::vector<fs::path> files_in(const fs::path& directory) {
  std::error_code error;
  std::vector<fs::path> files;
  for (fs::directory_iterator entry(directory, error), end; !error && entry != end; entry.increment(error))
    files.push_back(entry->path());
  if (error) throw FileError("list", directory, error.value());
  std::sort(files.begin(), files.end());
  return files;
}

}  // namespace

fs::path run_directory_of(const fs::path& output) { return output.string() + ".run"; }

uint64_t bytes_in(const fs::path& directory) {
  if (!fs::is_directory(directory)) return 0;
  uint64_t bytes = 0;
  std::error_code gone;  // a job that writes there may have renamed it meanwhile
  for (const fs::path& file : files_in(directory))
    if (const auto size = fs::file_size(file, gone); !gone) bytes += size;
  return bytes;
}

std::string new_run_id() {
  std::random_device entropy;
  return fmt::format("{:08x}{:08x}{:08x}{:08x}", entropy(), entropy(), entropy(), entropy());
}

RunDirectory::RunDirectory(const fs::path& path) : path_(path) {
  const fs::path lock = path_ / "lock";
  do {
    if (::mkdir(path_.c_str(), 0777) == 0)
      sync_directory(directory_of(path_));
    else if (errno != EEXIST)
      throw FileError("make", path_, errno);
    lock_ = FileDescriptor(::open(lock.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666));
    if (!lock_ && errno == ENOENT) continue;
    if (!lock_) throw FileError("create", lock, errno);
    if (::flock(lock_.get(), LOCK_EX | LOCK_NB) != 0) {
      if (errno == EWOULDBLOCK)
        throw BadInput(
            fmt::format("another job is writing this output: {} is locked by {}; wait for it, or give "
                        "this job another output.path",
                        path_.string(), holder_of(lock_.get())));
      if (errno != ENOSYS && errno != ENOTSUP && errno != ENOLCK) throw FileError("lock", lock, errno);
      locked_ = false;
    }
  } while (!lock_ || !still_there(lock_.get(), lock));
  // For the message above alone, so a full disk may keep it from being written.
  const std::string holder = this_process();
  if (::ftruncate(lock_.get(), 0) != 0 ||
      ::pwrite(lock_.get(), holder.data(), holder.size(), 0) != static_cast<ssize_t>(holder.size()))
    return;
}

std::optional<Manifest> RunDirectory::read_manifest() const {
  const fs::path path = path_ / "manifest.json";
  if (!fs::exists(path)) return std::nullopt;
  try {
    const auto json = nlohmann::ordered_json::parse(read_file(path));
    if (const int format = json.at("format").get<int>(); format != kFormat)
      throw Error(
          fmt::format("{} has format {}, and this program knows {}: finish the run with the program "
                      "that began it, or start over with --fresh",
                      path.string(), format, kFormat));
    return Manifest{.run_id = json.at("run_id").get<std::string>(),
                    .created = json.at("created").get<int64_t>(),
                    .num_rows = json.at("num_rows").get<uint64_t>(),
                    .fingerprint = fingerprint_from_json(json.at("fingerprint"))};
  } catch (const nlohmann::json::exception& error) {
    throw Error(fmt::format("{} cannot be read ({}): start over with --fresh", path.string(), error.what()));
  }
}

void RunDirectory::write_manifest(const Manifest& manifest) const {
  const nlohmann::ordered_json json = {{"format", kFormat},
                                       {"run_id", manifest.run_id},
                                       {"created", manifest.created},
                                       {"num_rows", manifest.num_rows},
                                       {"fingerprint", to_json(manifest.fingerprint)}};
  const fs::path path = path_ / "manifest.json";
  write_file_durably(path, path.string() + ".tmp", {json.dump(2), "\n"});
}

int RunDirectory::remove_strays(const std::vector<SegmentRecord>& segments) const {
  std::set<std::string> known = {"lock", "manifest.json", "ledger"};
  for (const SegmentRecord& segment : segments) known.insert(segment.name);
  int removed = 0;
  for (const fs::path& file : files_in(path_))
    if (!known.contains(file.filename().string())) removed += remove_file(file);
  return removed;
}

void RunDirectory::clear() const {
  if (remove_file(path_ / "manifest.json")) sync_directory(path_);
  for (const fs::path& file : files_in(path_))
    if (file.filename() != "lock") remove_file(file);
}

void RunDirectory::remove() {
  clear();
  remove_file(path_ / "lock");
  if (::rmdir(path_.c_str()) != 0) throw FileError("remove", path_, errno);
  sync_directory(directory_of(path_));
  lock_ = FileDescriptor();
}

}  // namespace moerun
