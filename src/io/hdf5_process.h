#pragma once
#include <sys/types.h>

#include <cstdint>
#include <functional>
#include <optional>
#include <string>

#include "base/file_descriptor.h"

namespace moerun {

/// A process that looks at an HDF5 file of somebody else's: the HDF5 library crashes, loops and allocates
/// without bound on damaged files, and that must not take the job with it. The process is this program again
/// (under MPI a fork without exec would share the job's memory and its connections), talks over a socket
/// pair, touches neither MPI nor a device, and ends with its owner. Its memory is limited to kMostBytes and
/// each request to so many seconds of processor time.
///
/// Everything throws BadInput: what the file is refused with, or how the process died. Thread contract: one
/// thread.
class Hdf5Process {
 public:
  static constexpr uint64_t kMostBytes = uint64_t{4} << 30;
  static constexpr int kMostSeconds = 60;  ///< of a request that reads data
  static constexpr int kFewSeconds = 5;    ///< of one that looks at attributes

  /// `path` is the file's, for messages. `seconds` of processor time are a request's.
  explicit Hdf5Process(std::string path, int seconds = kMostSeconds);
  ~Hdf5Process();
  Hdf5Process(const Hdf5Process&) = delete;
  Hdf5Process& operator=(const Hdf5Process&) = delete;

  pid_t id() const { return process_; }
  /// What the process answers (serve_hdf5_requests).
  std::string ask(const std::string& request);

 private:
  void end();
  [[noreturn]] void died();

  std::string path_;
  int seconds_;
  FileDescriptor socket_;
  pid_t process_ = -1;
};

/// Whether main() is that of such a process.
bool is_hdf5_process(int argc, char** argv);

/// Answers the owner's requests until it is gone; what `answer` throws is what the file is refused with.
void serve_hdf5_requests(const std::function<std::string(const std::string& request)>& answer);

/// Gives the request under way kMostSeconds of processor time anew.
void limit_hdf5_request();

}  // namespace moerun
