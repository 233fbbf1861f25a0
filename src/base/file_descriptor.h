#pragma once
#include <unistd.h>

#include <utility>

namespace moerun {

/// A file descriptor that is closed with its owner, which cannot say that it failed: a file that was written
/// is closed with close_file (io/durable_file.h).
class FileDescriptor {
 public:
  FileDescriptor() = default;
  explicit FileDescriptor(int fd) : fd_(fd) {}
  ~FileDescriptor() {
    if (fd_ >= 0) ::close(fd_);
  }
  FileDescriptor(FileDescriptor&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  FileDescriptor& operator=(FileDescriptor&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }

  int get() const { return fd_; }
  explicit operator bool() const { return fd_ >= 0; }
  void close() { *this = FileDescriptor(); }
  /// Gives the descriptor up without closing it, for a caller that must know whether closing worked.
  int release() { return std::exchange(fd_, -1); }

 private:
  int fd_ = -1;
};

}  // namespace moerun
