#include "store_faulty_disk.h"

#include <dirent.h>
#include <dlfcn.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <mutex>
#include <stdexcept>

#include "moerun/error.h"

namespace fs = std::filesystem;

namespace moerun {
namespace {

/// What of a directory would be there after a power cut: of each file the bytes of its last fsync, of each
/// directory the names of its last fsync. A disk may keep more than that; it never keeps less.
class DurableState {
 public:
  /// All that is there now is safe.
  explicit DurableState(const std::string& root) : root_(root) {
    sync(root_);
    for (const auto& entry : fs::recursive_directory_iterator(root_)) sync(entry.path());
  }

  void sync(const fs::path& path) {
    const Node node = look_at(path);
    hold(path);
    if (!node.is_directory) {
      std::ifstream in(path, std::ios::binary);
      bytes_[node.inode] = std::string(std::istreambuf_iterator<char>(in), {});
      return;
    }
    auto& names = names_[node.inode];
    names.clear();
    for (const auto& entry : fs::directory_iterator(path)) {
      names[entry.path().filename()] = look_at(entry.path());
      hold(entry.path());
    }
  }

  /// Makes the directory what it would be after a power cut.
  void cut_power() {
    const Node root = look_at(root_);
    for (const auto& entry : fs::directory_iterator(root_)) fs::remove_all(entry.path());
    restore(root, root_);
  }

 private:
  struct Node {
    ino_t inode = 0;
    bool is_directory = false;
  };

  static Node look_at(const fs::path& path) {
    struct stat status = {};
    if (::stat(path.c_str(), &status) != 0) throw std::runtime_error("cannot look at " + path.string());
    return {status.st_ino, S_ISDIR(status.st_mode)};
  }
  // An open file keeps its inode number, so that no new file takes over an old one's state.
  void hold(const fs::path& path) {
    if (held_[look_at(path).inode]++ == 0) std::fopen(path.c_str(), "r");
  }
  void restore(const Node& directory, const fs::path& path) {
    for (const auto& [name, node] : names_[directory.inode]) {
      if (node.is_directory) {
        fs::create_directory(path / name);
        restore(node, path / name);
      } else {
        std::ofstream(path / name, std::ios::binary) << bytes_[node.inode];
      }
    }
  }

  fs::path root_;
  std::map<ino_t, std::string> bytes_;
  std::map<ino_t, std::map<std::string, Node>> names_;
  std::map<ino_t, int> held_;
};

constexpr int kStruck = 77, kThrew = 78;

struct Shared {
  volatile uint64_t acknowledged;
  int exit_code;
  bool struck;
  char message[1000];
};

/// The child's fault; null in every other process.
struct FaultInForce {
  Fault fault;
  uint64_t step;
  Shared* shared;
  DurableState durable;
  std::mutex mutex;  // the seal thread and the main thread change files
  uint64_t steps = 0;

  [[noreturn]] void die() {
    shared->struck = true;
    if (fault == Fault::power_cut) durable.cut_power();
    ::_exit(kStruck);
  }
};
std::atomic<FaultInForce*> in_force = nullptr;
thread_local bool within_step = false;  // what a step itself does to files is no step

template <typename Function>
Function* next(const char* name) {
  return reinterpret_cast<Function*>(::dlsym(RTLD_NEXT, name));
}

// Runs `whole`, or the fault in its place; `half` is what is done of it by then. `bytes`: of a write, else 0.
template <typename Whole, typename Half>
auto step(const Whole& whole, const Half& half, size_t bytes) -> decltype(whole()) {
  FaultInForce* const fault = in_force;
  if (!fault || within_step) return whole();
  const std::lock_guard lock(fault->mutex);
  within_step = true;
  const struct Leave {
    ~Leave() { within_step = false; }
  } leave;
  const uint64_t number = ++fault->steps;
  if (number < fault->step || fault->fault == Fault::none) return whole();
  if (fault->fault == Fault::fails_once || fault->fault == Fault::lost_write) {
    if (number > fault->step) return whole();
    fault->shared->struck = true;
    if (fault->fault == Fault::lost_write) return bytes > 0 ? static_cast<decltype(whole())>(bytes) : whole();
    errno = EIO;
    return -1;
  }
  if (fault->fault == Fault::full_disk) {
    if (bytes == 0) return whole();
    fault->shared->struck = true;
    if (number == fault->step) return half();
    errno = ENOSPC;
    return -1;
  }
  half();
  fault->die();
}

template <typename Whole>
auto step(const Whole& whole) -> decltype(whole()) {
  return step(
      whole, [] { return 0; }, 0);
}

}  // namespace

FaultyRun run_on_faulty_disk(const std::string& directory, Fault fault, uint64_t step,
                             const std::function<void(volatile uint64_t&)>& body) {
  auto* shared = static_cast<Shared*>(
      ::mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
  if (shared == MAP_FAILED) throw std::runtime_error("mmap");
  std::fflush(nullptr);
  const pid_t child = ::fork();
  if (child < 0) throw std::runtime_error("fork");
  if (child == 0) {
    in_force =
        new FaultInForce{.fault = fault, .step = step, .shared = shared, .durable = DurableState(directory)};
    try {
      body(shared->acknowledged);
    } catch (const Error& error) {
      shared->exit_code = static_cast<int>(error.code());
      std::snprintf(shared->message, sizeof shared->message, "%s", error.what());
      std::exit(kThrew);  // not _exit: HDF5's own clean-up is part of what must work
    } catch (const std::exception& error) {
      std::snprintf(shared->message, sizeof shared->message, "%s", error.what());
      ::_exit(1);
    }
    std::exit(0);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  FaultyRun run = {.acknowledged = shared->acknowledged, .struck = shared->struck};
  run.message = shared->message;
  const int code = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  if (code != 0 && code != kStruck && code != kThrew)
    throw std::runtime_error("the child ended with status " + std::to_string(status) + ": " + run.message);
  run.finished = code == 0;
  run.exit_code = code == kThrew ? shared->exit_code : 0;
  ::munmap(shared, sizeof(Shared));
  return run;
}

}  // namespace moerun

using moerun::next;
using moerun::step;

extern "C" {

ssize_t write(int fd, const void* data, size_t bytes) {
  static auto* const real = next<ssize_t(int, const void*, size_t)>("write");
  return step([=] { return real(fd, data, bytes); }, [=] { return real(fd, data, bytes / 2); }, bytes);
}

ssize_t pwrite(int fd, const void* data, size_t bytes, off_t offset) {
  static auto* const real = next<ssize_t(int, const void*, size_t, off_t)>("pwrite");
  return step([=] { return real(fd, data, bytes, offset); },
              [=] { return real(fd, data, bytes / 2, offset); }, bytes);
}

int ftruncate(int fd, off_t length) noexcept {
  static auto* const real = next<int(int, off_t)>("ftruncate");
  return step([=] { return real(fd, length); });
}

int fsync(int fd) {
  static auto* const real = next<int(int)>("fsync");
  if (!moerun::in_force) return real(fd);
  return step([=] {
    moerun::in_force.load()->durable.sync(fs::read_symlink("/proc/self/fd/" + std::to_string(fd)));
    return 0;
  });
}

int rename(const char* from, const char* to) noexcept {
  static auto* const real = next<int(const char*, const char*)>("rename");
  return step([=] { return real(from, to); });
}

int renameat(int from_at, const char* from, int to_at, const char* to) noexcept {
  static auto* const real = next<int(int, const char*, int, const char*)>("renameat");
  return step([=] { return real(from_at, from, to_at, to); });
}

int renameat2(int from_at, const char* from, int to_at, const char* to, unsigned flags) noexcept {
  static auto* const real = next<int(int, const char*, int, const char*, unsigned)>("renameat2");
  return step([=] { return real(from_at, from, to_at, to, flags); });
}

int linkat(int from_at, const char* from, int to_at, const char* to, int flags) noexcept {
  static auto* const real = next<int(int, const char*, int, const char*, int)>("linkat");
  return step([=] { return real(from_at, from, to_at, to, flags); });
}

int unlinkat(int at, const char* path, int flags) noexcept {
  static auto* const real = next<int(int, const char*, int)>("unlinkat");
  return step([=] { return real(at, path, flags); });
}

int unlink(const char* path) noexcept {
  static auto* const real = next<int(const char*)>("unlink");
  return step([=] { return real(path); });
}

int mkdir(const char* path, mode_t mode) noexcept {
  static auto* const real = next<int(const char*, mode_t)>("mkdir");
  return step([=] { return real(path, mode); });
}

int rmdir(const char* path) noexcept {
  static auto* const real = next<int(const char*)>("rmdir");
  return step([=] { return real(path); });
}

}  // extern "C"
