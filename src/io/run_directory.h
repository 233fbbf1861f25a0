#pragma once
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "fault/file_descriptor.h"
#include "io/segment.h"
#include "moerun/io.h"

namespace moerun {

/// What a run directory says about its run; written once, before anything is sealed.
struct Manifest {
  std::string run_id;     ///< 32 hex digits, drawn for this run
  int64_t created = 0;    ///< seconds since 1970
  uint64_t num_rows = 0;  ///< of the input
  Fingerprint fingerprint;
};

/// OUTPUT.run/ while a job runs: `lock`, `manifest.json`, `ledger`, and the segments. A directory without a
/// manifest holds nothing that counts.
///
/// The lock is flock's: it goes with the process that holds it, however that ends. Thread contract: one
/// thread at a time; the segments and the ledger are the seal thread's while it runs.
class RunDirectory {
 public:
  /// Makes the directory if need be and locks it. Throws BadInput when another job holds it.
  explicit RunDirectory(const std::filesystem::path& path);

  const std::filesystem::path& path() const { return path_; }
  std::filesystem::path ledger() const { return path_ / "ledger"; }
  /// False on file systems without locks, where two jobs with one output go unnoticed.
  bool locked() const { return locked_; }

  /// None when no run was begun. Throws Error when it cannot be read.
  std::optional<Manifest> read_manifest() const;
  void write_manifest(const Manifest& manifest) const;

  /// Removes the files that `segments` does not name: temporary ones, and segments that never reached the
  /// ledger. Returns how many.
  int remove_strays(const std::vector<SegmentRecord>& segments) const;
  /// Removes all but the lock, the manifest first: what a death leaves of it counts for nothing.
  void clear() const;
  /// Removes the directory as a whole; the lock goes last.
  void remove();

 private:
  std::filesystem::path path_;
  FileDescriptor lock_;
  bool locked_ = true;
};

/// The run directory of an output.
std::filesystem::path run_directory_of(const std::filesystem::path& output);

/// Bytes of the files in a directory; 0 where there is none.
uint64_t bytes_in(const std::filesystem::path& directory);

std::string new_run_id();

}  // namespace moerun
