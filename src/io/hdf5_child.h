#pragma once
#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <string>

#include "base/file_descriptor.h"
#include "io/hdf5_input.h"

namespace moerun {

/// Reads an HDF5 input in a process of its own: the HDF5 library crashes, loops and allocates without bound
/// on damaged files, and that must not take the job with it. The process is this program again (under MPI a
/// fork without exec would share the job's memory and its connections), talks over a socket pair, touches
/// neither MPI nor a device, and ends with its owner. Its memory is limited to kMostBytes and each request to
/// kMostSeconds of processor time.
///
/// Everything throws BadInput: what the file is refused with, or how the process died. Thread contract: one
/// thread.
class Hdf5Child {
 public:
  static constexpr uint64_t kMostBytes = uint64_t{4} << 30;
  static constexpr int kMostSeconds = 60;

  Hdf5Child(const std::string& path, bool allow_external);
  ~Hdf5Child();
  Hdf5Child(const Hdf5Child&) = delete;
  Hdf5Child& operator=(const Hdf5Child&) = delete;

  const Hdf5InputShape& shape() const { return shape_; }
  pid_t process() const { return process_; }
  /// The block (Hdf5Block::pack) that begins with a row.
  std::string read(uint64_t first_row);

 private:
  void end();
  std::string ask(const std::string& request);
  [[noreturn]] void died();

  std::string path_;
  FileDescriptor socket_;
  pid_t process_ = -1;
  Hdf5InputShape shape_;
};

}  // namespace moerun
