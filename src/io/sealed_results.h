#pragma once
#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "io/directory.h"
#include "io/result_hdf5.h"
#include "io/run_directory.h"
#include "io/segment.h"

namespace moerun {

/// Answers of a run that are damaged.
struct DamagedAnswers {
  uint64_t num_rows = 0;
  std::vector<std::string> what;  ///< of the first few: sentences without full stops
};

/// A run as its directory shows it to whoever is not the run: while it goes on, or after it died. Nothing is
/// made, changed or removed, and no lock is kept. Thread contract: one thread at a time.
class SealedRun {
 public:
  /// Throws BadInput where `run_directory` holds no run.
  explicit SealedRun(const std::filesystem::path& run_directory);

  const Manifest& manifest() const { return manifest_; }
  const Directory& files() const { return files_; }
  /// Of the answers that were sealed when this was made.
  uint64_t num_sealed() const { return num_sealed_; }
  uint64_t num_row_errors() const { return num_row_errors_; }

  /// Calls `take` with the lines of them, newline included, in row order; of a line of several rows when all
  /// of them are sealed. Memory is that of SegmentMerge. What is damaged is passed over. Throws Error where
  /// the run ended meanwhile and is gone.
  DamagedAnswers each_line(const std::function<void(std::string_view)>& take) const;

 private:
  Directory files_;
  Manifest manifest_;
  std::vector<SegmentRecord> segments_;
  uint64_t num_sealed_ = 0, num_row_errors_ = 0;
};

/// read_finished_output (hdf5_child.h), for those who see no HDF5.
FinishedOutput finished_output(const std::filesystem::path& output);

/// The run directory of what a user names: the directory itself, or that of an output. Empty: there is
/// none.
std::filesystem::path run_directory_named(const std::filesystem::path& named);
/// The output of what a user names: the file itself, or that of a run directory.
std::filesystem::path output_named(const std::filesystem::path& named);

}  // namespace moerun
