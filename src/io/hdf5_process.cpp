#include "io/hdf5_process.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <signal.h>
#include <spawn.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <string_view>

#include "moerun/error.h"
#include "moerun/wire.h"

// gcc says so by macros, clang by features.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define MOERUN_SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define MOERUN_SANITIZED 1
#endif
#endif
#ifndef MOERUN_SANITIZED
#define MOERUN_SANITIZED 0
#endif

namespace moerun {
namespace {

constexpr const char kMode[] = "--read-hdf5-for-parent";
constexpr uint64_t kMostFrame = uint64_t{1} << 30;
constexpr uint64_t kReply = 0x3568646d6f657231;  // begins every reply
/// A sanitizer's shadow takes terabytes, and its reports are to be seen.
constexpr bool kSanitized = MOERUN_SANITIZED;

enum class Status : uint8_t { good, refused };

/// False when the other side is gone.
bool send_all(int fd, const void* data, size_t bytes) {
  for (const char* at = static_cast<const char*>(data); bytes > 0;) {
    const ssize_t sent = ::send(fd, at, bytes, MSG_NOSIGNAL);
    if (sent < 0 && errno == EINTR) continue;
    if (sent <= 0) return false;
    at += sent;
    bytes -= static_cast<size_t>(sent);
  }
  return true;
}

bool receive_all(int fd, void* data, size_t bytes) {
  for (char* at = static_cast<char*>(data); bytes > 0;) {
    const ssize_t got = ::recv(fd, at, bytes, 0);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return false;
    at += got;
    bytes -= static_cast<size_t>(got);
  }
  return true;
}

bool send_frame(int fd, const std::string& bytes) {
  const uint64_t size = bytes.size();
  return send_all(fd, &size, sizeof size) && send_all(fd, bytes.data(), bytes.size());
}

bool receive_frame(int fd, std::string& bytes) {
  uint64_t size = 0;
  if (!receive_all(fd, &size, sizeof size) || size > kMostFrame) return false;
  bytes.resize(size);
  return receive_all(fd, bytes.data(), size);
}

// --- the process ---

/// Its share of the machine. Signals are the job's affair: they reach every process of a Slurm step.
void confine() {
  ::syscall(SYS_close_range, 3U, ~0U, 0U);  // what the job has open; older kernels say no
  for (const int ignored : {SIGINT, SIGTERM, SIGUSR1, SIGUSR2, SIGHUP}) ::signal(ignored, SIG_IGN);
  ::signal(SIGPROF, SIG_DFL);
  sigset_t prof;
  sigemptyset(&prof);
  sigaddset(&prof, SIGPROF);
  sigprocmask(SIG_UNBLOCK, &prof, nullptr);
  const rlimit none{0, 0};
  ::setrlimit(RLIMIT_CORE, &none);
  const rlimit memory{Hdf5Process::kMostBytes, Hdf5Process::kMostBytes};
  if (!kSanitized) ::setrlimit(RLIMIT_DATA, &memory);
}

void limit(int seconds) {
  // SIGPROF ends the process when a request takes longer.
  const itimerval timer{.it_interval = {}, .it_value = {.tv_sec = seconds, .tv_usec = 0}};
  ::setitimer(ITIMER_PROF, &timer, nullptr);
}

std::string reply_to(const std::string& request,
                     const std::function<std::string(const std::string&)>& answer) {
  WireWriter out;
  out.put(kReply);
  try {
    std::string reply = answer(request);
    out.put(Status::good);
    out.put(reply);
  } catch (const std::bad_alloc&) {
    out.put(Status::refused);
    out.put(fmt::format("it takes more than {} GiB of memory to read it", Hdf5Process::kMostBytes >> 30));
  } catch (const std::exception& error) {
    out.put(Status::refused);
    out.put(std::string(error.what()));
  }
  return out.take();
}

}  // namespace

bool is_hdf5_process(int argc, char** argv) { return argc == 2 && std::string_view(argv[1]) == kMode; }

void limit_hdf5_request() { limit(Hdf5Process::kMostSeconds); }

void serve_hdf5_requests(const std::function<std::string(const std::string& request)>& answer) {
  confine();
  int seconds = 0;
  std::string request;
  while (receive_all(STDIN_FILENO, &seconds, sizeof seconds) && receive_frame(STDIN_FILENO, request)) {
    limit(seconds);
    if (!send_frame(STDIN_FILENO, reply_to(request, answer))) break;
  }
}

// --- its owner ---

Hdf5Process::Hdf5Process(std::string path, int seconds) : path_(std::move(path)), seconds_(seconds) {
  int ends[2];
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0)
    throw Error(fmt::format("{}: a process to read it cannot be started: {}", path_, std::strerror(errno)));
  socket_ = FileDescriptor(ends[0]);
  const FileDescriptor theirs(ends[1]);

  posix_spawn_file_actions_t files;
  posix_spawn_file_actions_init(&files);
  posix_spawn_file_actions_adddup2(&files, theirs.get(), STDIN_FILENO);
  posix_spawn_file_actions_addopen(&files, STDOUT_FILENO, "/dev/null", O_WRONLY, 0);
  if (!kSanitized)  // glibc's last words
    posix_spawn_file_actions_addopen(&files, STDERR_FILENO, "/dev/null", O_WRONLY, 0);
  posix_spawnattr_t attributes;
  posix_spawnattr_init(&attributes);
  posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETPGROUP);  // a terminal's Ctrl-C is for the job
  char name[] = "moerun", mode[sizeof kMode];
  std::memcpy(mode, kMode, sizeof kMode);
  char* const arguments[] = {name, mode, nullptr};
  const int fault = ::posix_spawn(&process_, "/proc/self/exe", &files, &attributes, arguments, environ);
  posix_spawnattr_destroy(&attributes);
  posix_spawn_file_actions_destroy(&files);
  if (fault != 0) {
    process_ = -1;
    throw Error(fmt::format("{}: a process to read it cannot be started: {}", path_, std::strerror(fault)));
  }
}

Hdf5Process::~Hdf5Process() { end(); }

void Hdf5Process::end() {
  socket_.close();
  if (process_ < 0) return;
  ::kill(process_, SIGKILL);  // it only reads
  int status = 0;
  while (::waitpid(process_, &status, 0) < 0 && errno == EINTR) {
  }
  process_ = -1;
}

std::string Hdf5Process::ask(const std::string& request) {
  std::string frame;
  const bool replied = process_ >= 0 && send_all(socket_.get(), &seconds_, sizeof seconds_) &&
                       send_frame(socket_.get(), request) && receive_frame(socket_.get(), frame);
  if (!replied) died();
  WireReader in(frame);
  if (in.get<uint64_t>() != kReply) died();
  const auto status = in.get<Status>();
  auto text = in.get<std::string>();
  if (status == Status::good) return text;
  throw BadInput(text.find(path_) == std::string::npos ? fmt::format("{}: {}", path_, text) : text);
}

void Hdf5Process::died() {
  int status = 0;
  pid_t ended = 0;
  if (process_ > 0) {
    socket_.close();  // if it lives, it ends now
    ::kill(process_, SIGKILL);
    while ((ended = ::waitpid(process_, &status, 0)) < 0 && errno == EINTR) {
    }
    process_ = -1;
  }
  if (ended > 0 && WIFSIGNALED(status) && WTERMSIG(status) == SIGPROF)
    throw BadInput(fmt::format(
        "{}: the HDF5 library does not come to an end with it in {} seconds of processor time: it "
        "is damaged",
        path_, seconds_));
  std::string how;
  if (ended > 0 && WIFSIGNALED(status)) how = fmt::format(" ({})", strsignal(WTERMSIG(status)));
  if (ended > 0 && WIFEXITED(status)) how = fmt::format(" (exit code {})", WEXITSTATUS(status));
  throw BadInput(
      fmt::format("{}: the HDF5 library dies of it{}: it is damaged, or takes more than {} GiB of memory to "
                  "read",
                  path_, how, kMostBytes >> 30));
}

}  // namespace moerun
