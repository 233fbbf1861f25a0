#include <poll.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <functional>
#include <string>

#include "fault/signals.h"
#include "tests/catch.h"

using namespace moerun;

namespace {

// Signals are delivered to a thread, so the request appears a moment after the raise.
StopRequest wait_for(const StopSignals& signals, Stop kind) {
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(10);
  StopRequest request = signals.poll();
  while (request.kind < kind && std::chrono::steady_clock::now() < end) {
    ::poll(nullptr, 0, 1);
    request = signals.poll();
  }
  return request;
}

void send(int signal) { kill(getpid(), signal); }

// A process of its own: threads that other tests have left in this one do not block the signals.
int exit_code_of(const std::function<int()>& body) {
  const pid_t child = fork();
  if (child == 0) _exit(body());
  int status = 0;
  REQUIRE(waitpid(child, &status, 0) == child);
  REQUIRE(WIFEXITED(status));
  return WEXITSTATUS(status);
}

}  // namespace

TEST_CASE("SIGTERM and SIGINT stop now, SIGUSR1 drains, and another one then stops now", "[signals]") {
  for (const int signal : {SIGTERM, SIGINT}) {
    CHECK(exit_code_of([signal] {
            const StopSignals signals;
            if (signals.poll().kind != Stop::none) return 1;
            send(signal);
            const StopRequest request = wait_for(signals, Stop::now);
            if (request.kind != Stop::now) return 2;
            return request.why == (signal == SIGTERM ? "SIGTERM" : "SIGINT") ? 0 : 3;
          }) == 0);
  }
  CHECK(exit_code_of([] {
          const StopSignals signals;
          send(SIGUSR1);
          if (wait_for(signals, Stop::drain).kind != Stop::drain) return 1;
          send(SIGTERM);
          return wait_for(signals, Stop::now).kind == Stop::now ? 0 : 2;
        }) == 0);
}

TEST_CASE("a drain becomes now when the grace has passed", "[signals]") {
  StopSignals signals;
  signals.set_limits({.time_s = 0, .grace_s = 0.05});
  signals.request(Stop::drain, "SIGUSR1 at rank 3");
  const StopRequest request = wait_for(signals, Stop::now);
  CHECK(request.kind == Stop::now);
  CHECK(request.why == "SIGUSR1 at rank 3");
}

TEST_CASE("a request is never softened", "[signals]") {
  StopSignals signals;
  signals.request(Stop::now, "the disk is full");
  signals.request(Stop::drain, "later");
  CHECK(signals.poll().kind == Stop::now);
  CHECK(signals.poll().why == "the disk is full");
}

TEST_CASE("the time limit drains, then stops", "[signals]") {
  StopSignals signals;
  signals.set_limits({.time_s = 0.05, .grace_s = 3600});
  CHECK(wait_for(signals, Stop::drain).kind == Stop::drain);
  CHECK(signals.poll().why == "the time limit of 0:00:00");
  signals.set_limits({.time_s = 14100, .grace_s = 60});
  CHECK(signals.poll().kind == Stop::none);
}

TEST_CASE("Slurm's end time drains before it comes", "[signals]") {
  const auto set_end = [](int seconds_left) {
    const auto now = std::chrono::system_clock::now().time_since_epoch();
    const auto end = std::chrono::duration_cast<std::chrono::seconds>(now).count() + seconds_left;
    setenv("SLURM_JOB_END_TIME", std::to_string(end).c_str(), 1);
  };
  StopSignals signals;
  set_end(3600);
  signals.set_limits({.time_s = 0, .grace_s = 60});
  CHECK(signals.poll().kind == Stop::none);
  set_end(-1);
  signals.set_limits({.time_s = 0, .grace_s = 60});
  CHECK(signals.poll().kind == Stop::now);
  unsetenv("SLURM_JOB_END_TIME");
  signals.set_limits({.time_s = 0, .grace_s = 60});
  CHECK(signals.poll().kind == Stop::none);
}

TEST_CASE("a second SIGTERM ends the process where it is, with exit code 75", "[signals]") {
  CHECK(exit_code_of([] {
          const StopSignals signals;
          send(SIGTERM);
          if (wait_for(signals, Stop::now).kind != Stop::now) return 1;
          ::poll(nullptr, 0, 1100);  // the same signal within a second counts once
          send(SIGTERM);
          ::poll(nullptr, 0, 10000);
          return 2;
        }) == 75);
}

TEST_CASE("a signal that a launcher repeats at once counts once", "[signals]") {
  CHECK(exit_code_of([] {
          const StopSignals signals;
          send(SIGTERM);
          if (wait_for(signals, Stop::now).kind != Stop::now) return 1;
          send(SIGTERM);
          ::poll(nullptr, 0, 300);
          return 0;
        }) == 0);
}
