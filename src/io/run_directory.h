#pragma once
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/file_descriptor.h"
#include "io/directory.h"
#include "io/durable_file.h"
#include "io/segment.h"
#include "moerun/io.h"

namespace moerun {

/// What a run directory says about its run; written once, before anything is sealed.
struct Manifest {
  std::string run_id;     ///< 32 hex digits, drawn for this run
  int64_t created = 0;    ///< seconds since 1970
  uint64_t num_rows = 0;  ///< of the input
  Fingerprint fingerprint;
  bool openai = false;             ///< the input is OpenAI batch lines
  std::string model;               ///< the model's folder
  std::string system_fingerprint;  ///< OpenAiLines::system_fingerprint
};

/// OUTPUT.run/ while a job runs: `lock`, `manifest.json`, `ledger`, and the segments. A directory without a
/// manifest holds nothing that counts.
///
/// The lock is flock's: it goes with the process that holds it, however that ends. Thread contract: one
/// thread at a time; the segments and the ledger are the seal thread's while it runs.
class RunDirectory {
 public:
  /// Makes the directory if need be and locks it. Throws BadInput when another job holds it, and where a link
  /// or something else has its name.
  explicit RunDirectory(const std::filesystem::path& path);

  const std::filesystem::path& path() const { return files_->path(); }
  const Directory& files() const { return *files_; }
  /// False on file systems without locks, where two jobs with one output go unnoticed.
  bool locked() const { return locked_; }

  /// None when no run was begun. Throws BadInput when it is damaged: then nothing says whose the answers are.
  std::optional<Manifest> read_manifest() const;
  void write_manifest(const Manifest& manifest) const;

  /// Removes the files that `segments` does not name: temporary ones, and segments that do not count.
  void remove_strays(const std::vector<SegmentRecord>& segments) const;

  /// A file of lines that is about to get its name, so that a process that comes later knows it for this
  /// run's: its size and checksum, under kJsonlRecord or kErrorsRecord.
  void write_lines_record(const std::string& name, const WrittenFile& file) const;
  /// None when no such file was about to get its name, or the record is damaged.
  std::optional<WrittenFile> read_lines_record(const std::string& name) const;

  /// Removes all but the lock, the manifest first: what a death leaves of it counts for nothing.
  void clear() const;
  /// The same, but for kept reports.
  void clear_answers() const;

  /// Keeps a report that cannot be written where it belongs, under kKeptReportJson or kKeptReportHtml.
  void keep_report(const std::string& name, const std::string& text) const;
  /// None where none is kept.
  std::optional<std::string> kept_report(const std::string& name) const;
  /// Removes the directory as a whole; the lock goes last. What others put there stays, and the directory
  /// too.
  void remove();

 private:
  std::unique_ptr<Directory> files_;  // its address stays: the seal thread has it
  FileDescriptor lock_;
  bool locked_ = true;
};

// For whoever looks at a run without being it: nothing is made, changed or removed.

/// RunDirectory::read_manifest().
std::optional<Manifest> read_manifest_of(const Directory& files);
/// The job that holds the lock, as "process 12 on HOST"; none where no job runs. Throws FileError on file
/// systems without locks.
std::optional<std::string> holder_of_run(const Directory& files);

inline constexpr const char* kStatusName =
    "status.json";  ///< how a running job stands (report/live_status.h)
inline constexpr const char *kJsonlRecord = "jsonl.json", *kErrorsRecord = "errors.json";
inline constexpr const char* kManifestName = "manifest.json";
inline constexpr const char* kKeptReportJson = "report.json";
inline constexpr const char* kKeptReportHtml = "report.html";

/// The run directory of an output.
std::filesystem::path run_directory_of(const std::filesystem::path& output);

/// Bytes of the files in a directory; 0 where there is none.
uint64_t bytes_in(const std::filesystem::path& directory);

std::string new_run_id();

/// "process 12 on HOST".
std::string this_process();

}  // namespace moerun
