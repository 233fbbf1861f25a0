#pragma once
#include <sys/types.h>

#include <filesystem>
#include <string>

#include "io/hdf5_input.h"
#include "io/hdf5_process.h"
#include "io/result_hdf5.h"

namespace moerun {

/// Reads an HDF5 input in a process of its own (Hdf5Process). Everything throws BadInput. Thread contract:
/// one thread.
class Hdf5Child {
 public:
  Hdf5Child(const std::string& path, bool allow_external);

  const Hdf5InputShape& shape() const { return shape_; }
  pid_t process() const { return process_.id(); }
  /// The block (Hdf5Block::pack) that begins with a row.
  std::string read(uint64_t first_row);

 private:
  Hdf5Process process_;
  Hdf5InputShape shape_;
};

/// What the file under an output's name says of itself. It may be anybody's: a process of its own looks.
/// Throws BadInput when it is no whole HDF5 file.
FinishedOutput read_finished_output(const std::filesystem::path& path);

}  // namespace moerun
