#pragma once
#include <filesystem>
#include <vector>

#include "io/durable_file.h"

namespace moerun {

/// The files of a job's output and the rules for their names: a name is given to a whole file and for good,
/// and never taken from another.
struct OutputFiles {
  std::filesystem::path hdf5;
  std::filesystem::path jsonl;   ///< empty: none
  std::filesystem::path errors;  ///< the lines of rows with an error; empty: they are in jsonl

  /// A file of lines, and the name of its record in the run directory.
  struct Lines {
    std::filesystem::path path;
    const char* record;
  };
  /// Those that there are.
  std::vector<Lines> lines() const;
  /// The HDF5 file comes last: where it has its name, the job is finished.
  bool finished() const;
  std::filesystem::path run_directory() const;
  /// Those that there are: files of lines before the HDF5 file.
  std::vector<std::filesystem::path> all() const;

  /// Throws BadInput where a directory is missing, or a name is a directory's or a link's that leads nowhere.
  void check() const;
  /// Throws BadInput where a name is a link.
  void check_no_links() const;
  /// Throws Error with ExitCode::stopped where something has a name by now.
  void check_names_free() const;
  /// Removes what a merge left under temporary names. Only for the holder of the run directory's lock.
  void remove_temporaries() const;
  /// The same on a full disk, also where HDF5 holds the file open. Failure is not the one that counts.
  void give_back_temporaries() const noexcept;
};

std::filesystem::path temporary_name(const std::filesystem::path& path);

/// Gives the synced file under temporary_name(path) the name `path`, durably. Throws Error with
/// ExitCode::stopped where something has that name by now.
void name_output(const std::filesystem::path& path);

/// What a file of an output holds, read whole.
WrittenFile look_at_output(const std::filesystem::path& path);

}  // namespace moerun
