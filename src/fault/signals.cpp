#include "fault/signals.h"

#include <fmt/format.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <mutex>
#include <optional>
#include <vector>

#include "base/file_descriptor.h"
#include "moerun/error.h"

namespace moerun {

namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::seconds;

constexpr seconds kSameSignal{1};
// What sealing may take after the grace, before the batch system kills.
constexpr double kSealingMargin = 15;

Clock::duration from_seconds(double s) {
  return std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(s));
}

std::string name_of_signal(int signal) { return fmt::format("SIG{}", sigabbrev_np(signal)); }

std::string hours(double s) {
  const auto whole = static_cast<int64_t>(s);
  return fmt::format("{}:{:02}:{:02}", whole / 3600, whole / 60 % 60, whole % 60);
}

/// Seconds from now to the end of the Slurm job that this process runs in.
std::optional<double> slurm_time_left() {
  const char* text =
      std::getenv("SLURM_JOB_END_TIME");  // seconds since 1970; 22.05 does not set it, newer Slurm does
  if (!text) return std::nullopt;
  char* end = nullptr;
  const long long when = std::strtoll(text, &end, 10);
  if (end == text || *end != '\0' || when <= 0) return std::nullopt;
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  return static_cast<double>(when) - std::chrono::duration<double>(now).count();
}

}  // namespace

struct StopSignals::State {
  /// A moment known beforehand at which a request of its own accord begins, and becomes `now`.
  struct Deadline {
    Clock::time_point drain, now;
    std::string why;
  };
  const Clock::time_point start = Clock::now();
  FileDescriptor signals, wake;

  mutable std::mutex mutex;
  StopRequest asked;
  Clock::time_point asked_at;
  Clock::duration grace = from_seconds(Job::Limits{}.grace_s);
  std::vector<Deadline> deadlines;
  int last_signal = 0;
  Clock::time_point last_signal_at;

  StopRequest current(Clock::time_point time) const {
    StopRequest request = asked;
    if (request.kind == Stop::drain && time >= asked_at + grace) request.kind = Stop::now;
    for (const Deadline& deadline : deadlines) {
      const Stop kind = time >= deadline.now ? Stop::now : time >= deadline.drain ? Stop::drain : Stop::none;
      if (kind > request.kind) request = {kind, deadline.why};
    }
    return request;
  }

  void ask(Stop kind, const std::string& why, Clock::time_point time) {
    if (kind <= current(time).kind) return;
    asked = {kind, why};
    asked_at = time;
  }
};

StopSignals::StopSignals() : state_(std::make_unique<State>()) {
  sigset_t mask;
  sigemptyset(&mask);
  for (const int signal : {SIGTERM, SIGINT, SIGUSR1}) sigaddset(&mask, signal);
  if (pthread_sigmask(SIG_BLOCK, &mask, &old_mask_) != 0) throw Error("cannot block signals");
  old_pipe_ = std::signal(SIGPIPE, SIG_IGN);
  state_->signals = FileDescriptor(signalfd(-1, &mask, SFD_CLOEXEC | SFD_NONBLOCK));
  state_->wake = FileDescriptor(eventfd(0, EFD_CLOEXEC));
  if (!state_->signals || !state_->wake) throw Error("cannot make a file descriptor for signals");
  thread_ = std::thread([this] { listen(); });
}

StopSignals::~StopSignals() {
  const uint64_t one = 1;
  while (write(state_->wake.get(), &one, sizeof one) < 0 && errno == EINTR) {
  }
  thread_.join();
  std::signal(SIGPIPE, old_pipe_);
  pthread_sigmask(SIG_SETMASK, &old_mask_, nullptr);
}

void StopSignals::listen() {
  std::array<pollfd, 2> fds{{{state_->signals.get(), POLLIN, 0}, {state_->wake.get(), POLLIN, 0}}};
  while (true) {
    if (::poll(fds.data(), fds.size(), -1) < 0) continue;
    if (fds[1].revents != 0) return;
    signalfd_siginfo info{};
    if (read(state_->signals.get(), &info, sizeof info) == static_cast<ssize_t>(sizeof info)) {
      receive(static_cast<int>(info.ssi_signo));
    }
  }
}

void StopSignals::receive(int signal) {
  const std::scoped_lock lock(state_->mutex);
  const auto time = Clock::now();
  if (signal == state_->last_signal && time < state_->last_signal_at + kSameSignal) return;
  state_->last_signal = signal;
  state_->last_signal_at = time;
  const Stop before = state_->current(time).kind;
  // A second signal asks again because the first did not do: the process ends where it is.
  if (before == Stop::now) _exit(static_cast<int>(ExitCode::stopped));
  const bool drain = signal == SIGUSR1 && before == Stop::none;
  state_->ask(drain ? Stop::drain : Stop::now, name_of_signal(signal), time);
}

void StopSignals::set_limits(const Job::Limits& limits) {
  const std::scoped_lock lock(state_->mutex);
  state_->grace = from_seconds(limits.grace_s);
  state_->deadlines.clear();
  if (limits.time_s > 0) {
    const auto end = state_->start + from_seconds(limits.time_s);
    state_->deadlines.push_back(
        {end, end + state_->grace, fmt::format("the time limit of {}", hours(limits.time_s))});
  }
  if (const auto left = slurm_time_left()) {
    // A job too short for the whole grace and margin keeps half of its time for answers.
    const double margin = std::min(kSealingMargin, *left / 4);
    const double grace = std::min(limits.grace_s, *left / 4);
    const auto now = Clock::now();
    state_->deadlines.push_back({now + from_seconds(*left - margin - grace),
                                 now + from_seconds(*left - margin), "the end of the Slurm job's time"});
  }
}

StopRequest StopSignals::poll() const {
  const std::scoped_lock lock(state_->mutex);
  return state_->current(Clock::now());
}

void StopSignals::request(Stop kind, const std::string& why) {
  const std::scoped_lock lock(state_->mutex);
  state_->ask(kind, why, Clock::now());
}

}  // namespace moerun
