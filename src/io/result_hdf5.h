#pragma once
#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>

#include "io/segment.h"
#include "moerun/io.h"
#include "moerun/record.h"

namespace moerun {

/// Which program and job an output is from: its root attributes.
struct OutputAttributes {
  Provenance provenance;
  std::string fingerprint;  ///< JSON, as to_json makes it
  std::string start, end;   ///< ISO 8601, UTC
  uint64_t num_rows = 0, num_row_errors = 0;
};

/// Writes results as flat columns with offsets (README, "Output") to a new HDF5 file. Memory is a chunk a
/// column, whatever the number of rows. Thread contract: the coordinator thread.
class Hdf5Results {
 public:
  /// `traits` are those of all rows together: they decide which columns there are.
  Hdf5Results(const std::filesystem::path& path, const RowTraits& traits, uint64_t num_rows);
  ~Hdf5Results();

  /// The next row, in row order. Throws Error; with ExitCode::stopped when the disk is full.
  void append(const RowResult& result);
  /// Writes what is buffered and the attributes, and closes. The file is not synced.
  void finish(const OutputAttributes& attributes);

 private:
  struct Columns;
  std::unique_ptr<Columns> columns_;
  bool finished_ = false;
};

/// What a finished output says about itself.
struct FinishedOutput {
  std::string fingerprint;  ///< JSON; empty when the file is not an output of this program
  uint64_t num_row_errors = 0;
};
/// Throws Error when the file is no whole HDF5 file.
FinishedOutput read_finished_output(const std::filesystem::path& path);

}  // namespace moerun
