// Preloaded into a job: the k-th of its calls that change files below a folder fails, as a disk would make it
// fail, or kills the process. HDF5's calls and the C++ library's are among them.
//
//   FAULTY_ROOT  the folder, absolute; calls on other files pass
//   FAULTY_CALL  k, from 1; 0: none fails
//   FAULTY_MODE  ENOSPC, EIO, EDQUOT, EINTR: the call fails so, once, and has done nothing (a close closes)
//                short: a write writes half; kill: SIGKILL in the call's place; half-kill: after half of a
//                write
//   FAULTY_LOG   gets a line "CALL PATH" for each such call
#include <dlfcn.h>
#include <fcntl.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstdarg>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <optional>
#include <string>
#include <type_traits>

namespace {

struct Plan {
  std::string root = text("FAULTY_ROOT"), mode = text("FAULTY_MODE"), log = text("FAULTY_LOG");
  long call = std::atol(text("FAULTY_CALL").c_str());

  static std::string text(const char* name) {
    const char* const value = std::getenv(name);
    return value ? value : "";
  }
  int error() const {
    return mode == "ENOSPC"   ? ENOSPC
           : mode == "EIO"    ? EIO
           : mode == "EDQUOT" ? EDQUOT
           : mode == "EINTR"  ? EINTR
                              : 0;
  }
};

const Plan& plan() {
  static const Plan* const plan = new Plan;
  return *plan;
}

std::atomic<long> calls = 0;

template <typename Function>
Function* next(const char* name) {
  return reinterpret_cast<Function*>(::dlsym(RTLD_NEXT, name));
}

std::string path_of(int fd) {
  char target[4096];
  const std::string link = "/proc/self/fd/" + std::to_string(fd);
  const ssize_t bytes = ::readlink(link.c_str(), target, sizeof target);
  return bytes > 0 ? std::string(target, static_cast<size_t>(bytes)) : "";
}

std::string path_at(int at, const char* path) {
  if (path[0] == '/') return path;
  if (at == AT_FDCWD) {
    char here[4096];
    return std::string(::getcwd(here, sizeof here) ? here : "") + "/" + path;
  }
  return path_of(at) + "/" + path;
}

bool counts(const std::string& path) {
  return !plan().root.empty() && path.starts_with(plan().root) &&
         (path.size() == plan().root.size() || path[plan().root.size()] == '/');
}

void write_log(const char* name, const std::string& path) {
  if (plan().log.empty()) return;
  const std::string line = std::string(name) + " " + path + "\n";
  const long fd = ::syscall(SYS_openat, AT_FDCWD, plan().log.c_str(), O_WRONLY | O_CREAT | O_APPEND, 0666);
  ::syscall(SYS_write, fd, line.data(), line.size());
  ::syscall(SYS_close, fd);
}

[[noreturn]] void die() {
  ::kill(::getpid(), SIGKILL);
  for (;;) ::pause();
}

/// Does `whole`, unless the call is the one; `half` does half of a write and says how much that was.
template <typename Whole, typename Half>
auto call(const char* name, const std::string& path, const Whole& whole, const Half& half)
    -> decltype(whole()) {
  if (!counts(path)) return whole();
  const long number = ++calls;
  write_log(name, path);
  if (number != plan().call) return whole();
  if (plan().mode == "kill") die();
  if (plan().mode == "half-kill") {
    half();
    die();
  }
  if (plan().mode == "short") {
    const auto done = half();
    return done > 0 ? done : whole();
  }
  if (std::strcmp(name, "close") == 0) whole();
  errno = plan().error();
  return -1;
}

template <typename Whole>
auto call(const char* name, const std::string& path, const Whole& whole) -> decltype(whole()) {
  return call(name, path, whole, []() -> decltype(whole()) { return 0; });
}

using Open = int(const char*, int, ...);
using OpenAt = int(int, const char*, int, ...);

int open_at(const char* name, int at, const char* path, int flags, mode_t mode) {
  static auto* const real = next<OpenAt>("openat");
  const auto whole = [=] { return real(at, path, flags, mode); };
  return flags & (O_CREAT | O_TRUNC) ? call(name, path_at(at, path), whole) : whole();
}

mode_t mode_in(int flags, va_list arguments) {
  return flags & (O_CREAT | O_TMPFILE) ? static_cast<mode_t>(va_arg(arguments, int)) : 0;
}

bool is_written(int fd) { return (::fcntl(fd, F_GETFL) & O_ACCMODE) != O_RDONLY; }

}  // namespace

extern "C" {

#define OPEN(name)                                       \
  int name(const char* path, int flags, ...) {           \
    va_list arguments;                                   \
    va_start(arguments, flags);                          \
    const mode_t mode = mode_in(flags, arguments);       \
    va_end(arguments);                                   \
    return open_at("open", AT_FDCWD, path, flags, mode); \
  }
OPEN(open)
OPEN(open64)
#define OPENAT(name)                                   \
  int name(int at, const char* path, int flags, ...) { \
    va_list arguments;                                 \
    va_start(arguments, flags);                        \
    const mode_t mode = mode_in(flags, arguments);     \
    va_end(arguments);                                 \
    return open_at("open", at, path, flags, mode);     \
  }
OPENAT(openat)
OPENAT(openat64)
int creat(const char* path, mode_t mode) {
  return open_at("open", AT_FDCWD, path, O_CREAT | O_WRONLY | O_TRUNC, mode);
}

int close(int fd) {
  static auto* const real = next<int(int)>("close");
  const std::string path = plan().root.empty() ? "" : path_of(fd);
  if (!counts(path) || !is_written(fd)) return real(fd);
  return call("close", path, [=] { return real(fd); });
}

ssize_t write(int fd, const void* data, size_t bytes) {
  static auto* const real = next<ssize_t(int, const void*, size_t)>("write");
  return call(
      "write", path_of(fd), [=] { return real(fd, data, bytes); }, [=] { return real(fd, data, bytes / 2); });
}

ssize_t pwrite(int fd, const void* data, size_t bytes, off_t offset) {
  static auto* const real = next<ssize_t(int, const void*, size_t, off_t)>("pwrite");
  return call(
      "pwrite", path_of(fd), [=] { return real(fd, data, bytes, offset); },
      [=] { return real(fd, data, bytes / 2, offset); });
}
ssize_t pwrite64(int fd, const void* data, size_t bytes, off64_t offset) {
  return pwrite(fd, data, bytes, offset);
}

ssize_t writev(int fd, const iovec* parts, int count) {
  static auto* const real = next<ssize_t(int, const iovec*, int)>("writev");
  return call(
      "writev", path_of(fd), [=] { return real(fd, parts, count); },
      [=]() -> ssize_t { return write(fd, parts[0].iov_base, parts[0].iov_len / 2); });
}

ssize_t pwritev(int fd, const iovec* parts, int count, off_t offset) {
  static auto* const real = next<ssize_t(int, const iovec*, int, off_t)>("pwritev");
  return call("pwritev", path_of(fd), [=] { return real(fd, parts, count, offset); });
}

int fsync(int fd) {
  static auto* const real = next<int(int)>("fsync");
  return call("fsync", path_of(fd), [=] { return real(fd); });
}
int fdatasync(int fd) {
  static auto* const real = next<int(int)>("fdatasync");
  return call("fdatasync", path_of(fd), [=] { return real(fd); });
}
int ftruncate(int fd, off_t length) noexcept {
  static auto* const real = next<int(int, off_t)>("ftruncate");
  return call("ftruncate", path_of(fd), [=] { return real(fd, length); });
}
int ftruncate64(int fd, off64_t length) noexcept { return ftruncate(fd, length); }
int fallocate(int fd, int mode, off_t offset, off_t length) {
  static auto* const real = next<int(int, int, off_t, off_t)>("fallocate");
  return call("fallocate", path_of(fd), [=] { return real(fd, mode, offset, length); });
}

int truncate(const char* path, off_t length) noexcept {
  static auto* const real = next<int(const char*, off_t)>("truncate");
  return call("truncate", path_at(AT_FDCWD, path), [=] { return real(path, length); });
}

int renameat2(int from_at, const char* from, int to_at, const char* to, unsigned flags) noexcept {
  static auto* const real = next<int(int, const char*, int, const char*, unsigned)>("renameat2");
  return call("rename", path_at(to_at, to), [=] { return real(from_at, from, to_at, to, flags); });
}
int renameat(int from_at, const char* from, int to_at, const char* to) noexcept {
  return renameat2(from_at, from, to_at, to, 0);
}
int rename(const char* from, const char* to) noexcept { return renameat2(AT_FDCWD, from, AT_FDCWD, to, 0); }

int linkat(int from_at, const char* from, int to_at, const char* to, int flags) noexcept {
  static auto* const real = next<int(int, const char*, int, const char*, int)>("linkat");
  return call("link", path_at(to_at, to), [=] { return real(from_at, from, to_at, to, flags); });
}
int link(const char* from, const char* to) noexcept { return linkat(AT_FDCWD, from, AT_FDCWD, to, 0); }

int symlinkat(const char* target, int at, const char* path) noexcept {
  static auto* const real = next<int(const char*, int, const char*)>("symlinkat");
  return call("symlink", path_at(at, path), [=] { return real(target, at, path); });
}
int symlink(const char* target, const char* path) noexcept { return symlinkat(target, AT_FDCWD, path); }

int unlinkat(int at, const char* path, int flags) noexcept {
  static auto* const real = next<int(int, const char*, int)>("unlinkat");
  return call(flags & AT_REMOVEDIR ? "rmdir" : "unlink", path_at(at, path),
              [=] { return real(at, path, flags); });
}
int unlink(const char* path) noexcept { return unlinkat(AT_FDCWD, path, 0); }
int rmdir(const char* path) noexcept { return unlinkat(AT_FDCWD, path, AT_REMOVEDIR); }
int remove(const char* path) noexcept {
  const int done = unlink(path);
  return done != 0 && errno == EISDIR ? rmdir(path) : done;
}

int mkdirat(int at, const char* path, mode_t mode) noexcept {
  static auto* const real = next<int(int, const char*, mode_t)>("mkdirat");
  return call("mkdir", path_at(at, path), [=] { return real(at, path, mode); });
}
int mkdir(const char* path, mode_t mode) noexcept { return mkdirat(AT_FDCWD, path, mode); }

}  // extern "C"
