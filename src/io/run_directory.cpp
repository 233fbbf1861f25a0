#include "io/run_directory.h"

#include <fmt/format.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <nlohmann/json.hpp>
#include <random>
#include <set>
#include <thread>

#include "io/durable_file.h"
#include "io/fingerprint.h"
#include "io/json_number.h"
#include "io/ledger.h"
#include "moerun/file_names.h"

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

// Whether the open file is still what the path names: another job may have removed its directory between our
// open and our flock.
bool still_there(int fd, const fs::path& path) {
  struct stat opened = {}, named = {};
  return ::fstat(fd, &opened) == 0 && ::lstat(path.c_str(), &named) == 0 && opened.st_ino == named.st_ino &&
         opened.st_dev == named.st_dev;
}

/// flock without waiting for another job; `moerun status` holds a lock for a moment, to see whether there is
/// one. False with errno where it is not to be had.
bool lock_soon(int fd) {
  constexpr int kTries = 10;
  for (int tries = 1; ::flock(fd, LOCK_EX | LOCK_NB) != 0; ++tries) {
    if (errno != EWOULDBLOCK || tries == kTries) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  return true;
}

/// The directory of a run, made if need be.
std::unique_ptr<Directory> make_directory(const fs::path& path) {
  if (::mkdir(path.c_str(), 0777) != 0 && errno != EEXIST) throw FileError("make", path, errno);
  // Also one that is there: whoever made it may have died before its name was safe.
  Directory(directory_of(path), Directory::Links::followed).sync();
  try {
    return std::make_unique<Directory>(path, Directory::Links::refused);
  } catch (const FileError& error) {
    if (error.os_error() != ENOTDIR && error.os_error() != ELOOP) throw;
    throw BadInput(
        fmt::format("{} is {}, and this job's answers are sealed in a directory of that name: move it away",
                    path.string(), is_link(path) ? "a symbolic link" : "no directory"));
  }
}

/// False where somebody has put a directory that is not empty, or one that may not be removed.
bool remove_if_file(const Directory& directory, const std::string& name) {
  try {
    return directory.remove(name);
  } catch (const FileError& error) {
    if (error.os_error() == EISDIR) return false;
    throw;
  }
}

constexpr const char* kLock = "lock";
// What this program wrote is far below each.
constexpr uint64_t kMostManifestBytes = 16u << 20, kMostRecordBytes = 4096, kMostReportBytes = 64u << 20;

}  // namespace

fs::path run_directory_of(const fs::path& output) { return output.string() + kRunDirectorySuffix; }

uint64_t bytes_in(const fs::path& directory) {
  std::error_code error;
  uint64_t bytes = 0;
  for (fs::directory_iterator entry(directory, error), end; !error && entry != end; entry.increment(error)) {
    std::error_code gone;  // a job that writes there may have renamed it meanwhile
    if (const auto size = fs::file_size(entry->path(), gone); !gone) bytes += size;
  }
  return bytes;
}

std::string this_process() {
  std::array<char, 256> host{};
  ::gethostname(host.data(), host.size() - 1);
  return fmt::format("process {} on {}", ::getpid(), host.data());
}

std::string new_run_id() {
  std::random_device entropy;
  return fmt::format("{:08x}{:08x}{:08x}{:08x}", entropy(), entropy(), entropy(), entropy());
}

RunDirectory::RunDirectory(const fs::path& path) {
  do {
    lock_ = FileDescriptor();
    try {
      files_ = make_directory(path);
      lock_ = files_->open_or_create(kLock);
    } catch (const FileError& error) {
      if (error.os_error() == ENOENT) continue;  // another job has just removed the directory
      throw;
    } catch (const BadInput&) {
      throw;
    } catch (const Error& error) {
      throw BadInput(fmt::format("{}: remove it", error.what()));  // a link in the lock's place
    }
    if (!lock_soon(lock_.get())) {
      if (errno == EWOULDBLOCK)
        throw BadInput(
            fmt::format("another job is writing this output: {} is locked by {}; wait for it, or give "
                        "this job another output.path",
                        path.string(), holder_of(lock_.get())));
      if (errno != ENOSYS && errno != ENOTSUP && errno != ENOLCK)
        throw FileError("lock", path / kLock, errno);
      locked_ = false;
    }
  } while (!lock_ || !still_there(lock_.get(), path / kLock));
  // For the message above alone, so a full disk may keep it from being written.
  const std::string holder = this_process() + "\n";
  if (::ftruncate(lock_.get(), 0) != 0 ||
      ::pwrite(lock_.get(), holder.data(), holder.size(), 0) != static_cast<ssize_t>(holder.size()))
    return;
}

std::optional<Manifest> read_manifest_of(const Directory& files) {
  if (!files.has(kManifestName)) return std::nullopt;
  const std::string path = files.path_of(kManifestName).string();
  try {
    const auto json = nlohmann::ordered_json::parse(files.read(kManifestName, kMostManifestBytes));
    if (const int format = whole_number<int>(json, "format"); format != kFormat)
      throw BadInput(
          fmt::format("{} has format {}, and this program knows {}: finish the run with the program "
                      "that began it, or start over with --fresh",
                      path, format, kFormat));
    Manifest manifest = {.run_id = json.at("run_id").get<std::string>(),
                         .created = whole_number<int64_t>(json, "created"),
                         .num_rows = whole_number<uint64_t>(json, "num_rows"),
                         .fingerprint = fingerprint_from_json(json.at("fingerprint")),
                         .openai = json.value("openai", false),
                         .model = json.value("model", ""),
                         .system_fingerprint = json.value("system_fingerprint", "")};
    if (manifest.run_id.size() != kRunIdBytes)
      throw BadInput(
          fmt::format("{} has no run_id of {} digits: start over with --fresh", path, kRunIdBytes));
    return manifest;
  } catch (const nlohmann::json::exception& error) {
    throw BadInput(fmt::format("{} cannot be read ({}): start over with --fresh", path, error.what()));
  } catch (const Error& error) {
    if (error.code() != ExitCode::fault) throw;
    const std::string what = error.what();
    if (what.find(path) != std::string::npos) throw BadInput(what + ": start over with --fresh");
    throw BadInput(fmt::format("{} cannot be read ({}): start over with --fresh", path, what));
  }
}

std::optional<Manifest> RunDirectory::read_manifest() const { return read_manifest_of(*files_); }

std::optional<std::string> holder_of_run(const Directory& files) {
  if (!files.has(kLock)) return std::nullopt;
  const FileDescriptor lock = files.open(kLock);
  if (::flock(lock.get(), LOCK_SH | LOCK_NB) == 0) return std::nullopt;  // gone with the descriptor
  if (errno == EWOULDBLOCK) return holder_of(lock.get());
  throw FileError("lock", files.path_of(kLock), errno);
}

void RunDirectory::write_manifest(const Manifest& manifest) const {
  const nlohmann::ordered_json json = {{"format", kFormat},
                                       {"run_id", manifest.run_id},
                                       {"created", manifest.created},
                                       {"num_rows", manifest.num_rows},
                                       {"openai", manifest.openai},
                                       {"model", manifest.model},
                                       {"system_fingerprint", manifest.system_fingerprint},
                                       {"fingerprint", to_json(manifest.fingerprint)}};
  files_->write_durably(kManifestName, {json.dump(2), "\n"});
}

void RunDirectory::write_lines_record(const std::string& name, const WrittenFile& file) const {
  const nlohmann::ordered_json json = {{"bytes", file.bytes}, {"sha256", file.sha256}};
  files_->write_durably(name, {json.dump(), "\n"});
}

std::optional<WrittenFile> RunDirectory::read_lines_record(const std::string& name) const {
  if (!files_->has(name)) return std::nullopt;
  try {
    const auto json = nlohmann::json::parse(files_->read(name, kMostRecordBytes));
    return WrittenFile{.bytes = whole_number<uint64_t>(json, "bytes"),
                       .sha256 = json.at("sha256").get<std::string>()};
  } catch (const nlohmann::json::exception&) {
    return std::nullopt;
  } catch (const Error& error) {
    if (error.code() != ExitCode::fault) throw;
    return std::nullopt;
  }
}

void RunDirectory::remove_strays(const std::vector<SegmentRecord>& segments) const {
  std::set<std::string> known = {kLock, kManifestName, kLedgerName, kJsonlRecord, kErrorsRecord, kStatusName};
  for (const SegmentRecord& segment : segments) known.insert(segment.name);
  for (const std::string& name : files_->names())
    if (!known.contains(name)) remove_if_file(*files_, name);
}

void RunDirectory::clear() const {
  clear_answers();
  for (const char* name : {kKeptReportJson, kKeptReportHtml}) files_->remove(name);
}

void RunDirectory::clear_answers() const {
  if (files_->remove(kManifestName)) files_->sync();
  for (const std::string& name : files_->names())
    if (name != kLock && name != kKeptReportJson && name != kKeptReportHtml) remove_if_file(*files_, name);
}

void RunDirectory::keep_report(const std::string& name, const std::string& text) const {
  files_->write_durably(name, {text});
}

std::optional<std::string> RunDirectory::kept_report(const std::string& name) const {
  if (!files_->has(name)) return std::nullopt;
  return files_->read(name, kMostReportBytes);
}

void RunDirectory::remove() {
  clear();
  files_->remove(kLock);
  lock_ =
      FileDescriptor();  // NFS keeps an open file under another name, and the directory would not be empty
  if (::rmdir(path().c_str()) != 0 && errno != ENOTEMPTY && errno != EEXIST && errno != EBUSY &&
      errno != ENOENT)
    throw FileError("remove", path(), errno);
  Directory(directory_of(path()), Directory::Links::followed).sync();
}

}  // namespace moerun
