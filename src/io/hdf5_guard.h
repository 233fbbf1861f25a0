#pragma once
#include <cstdint>
#include <memory>
#include <string>

#include "io/hdf5.h"

namespace moerun::hdf5 {

/// What a dataset of an input may be at most: beyond, it is refused before anything is allocated by its
/// numbers.
struct DatasetLimits {
  static constexpr uint64_t kMostRows = uint64_t{1} << 40;          ///< of a dataset: tokens, too
  static constexpr uint64_t kMostChunkBytes = uint64_t{512} << 20;  ///< of a chunk, unpacked
  static constexpr uint64_t kMostStringBytes = uint64_t{64} << 20;  ///< of a string
};

class FileAccess;

/// A file that somebody else wrote, for reading. Everything throws BadInput, naming what it is about. Its
/// datasets must not outlive it.
class CheckedFile {
 public:
  CheckedFile(const std::string& path, bool allow_external);
  ~CheckedFile();

  /// Whether something stands under `path`. A link on the way that leads nowhere, or into another file unless
  /// `allow_external`, is refused.
  bool has(const std::string& path) const;

  /// Refuses a dataset that
  /// - is reached by a link into another file, has raw data in one, or is virtual with sources in one, unless
  ///   `allow_external`;
  /// - is packed by a filter that is not there;
  /// - was not written to the end: chunks, contiguous data, external files or virtual sources that are not
  /// there, in
  ///   whose place HDF5 would give fill values;
  /// - is beyond DatasetLimits.
  Dataset dataset(const std::string& path) const;

 private:
  std::unique_ptr<FileAccess> access_;  // HDF5 asks it for as long as a dataset is open
  File file_;
};

}  // namespace moerun::hdf5
