#pragma once
#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "io/content_sums.h"
#include "io/segment.h"
#include "moerun/io.h"
#include "moerun/record.h"

namespace moerun {

namespace hdf5 {
class Dataset;
}

/// Which program and job an output is from: its root attributes.
struct OutputAttributes {
  Provenance provenance;
  std::string fingerprint;  ///< JSON, as to_json makes it
  std::string start, end;   ///< ISO 8601, UTC
  uint64_t num_rows = 0, num_row_errors = 0;
};

/// What was written to a column, for reading it back.
struct ColumnSum {
  std::string name;
  uint64_t rows = 0;   ///< of the dataset
  std::string sha256;  ///< of its values, in their order
  /// Adds rows [begin, begin + count) of the dataset to the checksum, as the writer added them.
  void (*read)(const hdf5::Dataset& dataset, uint64_t begin, uint64_t count, Sha256& sum) = nullptr;
};

/// What a file of results is to hold.
struct WrittenResults {
  std::vector<ColumnSum> columns;
  OutputAttributes attributes;
};

/// Writes results as flat columns with offsets (docs/formats.md) to a new HDF5 file. Memory is a chunk a
/// column, whatever the number of rows. Thread contract: the coordinator thread.
class Hdf5Results {
 public:
  /// `traits` are those of all rows together: they decide which columns there are. `routed`: what each row
  /// brings of routers' choices.
  Hdf5Results(const std::filesystem::path& path, const RowTraits& traits, uint64_t num_rows,
              const RoutedShape& routed = {});
  ~Hdf5Results();

  /// The next row, in row order. Throws Error; with ExitCode::stopped when the disk is full.
  void append(const RowResult& result);
  /// Writes what is buffered and the attributes, and closes. The file is not synced.
  WrittenResults finish(const OutputAttributes& attributes);

 private:
  struct Columns;
  void append_answer(const RowResult& row, int32_t index, const auto& answer);

  std::unique_ptr<Columns> columns_;
  bool finished_ = false;
};

/// Reads a closed file of results whole: that it has these columns and no others, as many rows in each, every
/// value, and the attributes. Throws Error with ExitCode::stopped, naming what differs. Memory: a chunk of a
/// column.
void read_back(const std::filesystem::path& path, const WrittenResults& written);

/// What a finished output says about itself.
struct FinishedOutput {
  std::string fingerprint;  ///< JSON; empty when the file is not an output of this program
  std::string program_version, git_revision, layout, start, end;
  uint64_t num_rows = 0, num_row_errors = 0;
};
/// Throws Error when the file is no whole HDF5 file; HDF5 itself may crash on a damaged one, which is why
/// read_finished_output (hdf5_child.h) has another process look.
FinishedOutput look_at_finished_output(const std::string& path);

}  // namespace moerun
