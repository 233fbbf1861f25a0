#pragma once
#include <csignal>
#include <memory>
#include <string>
#include <thread>

#include "moerun/job.h"

namespace moerun {

/// How the job is asked to end early. Later ones are harder.
enum class Stop : int {
  none,
  drain,  ///< admit nothing more, let what runs finish (limits.grace), seal, exit 75
  now,    ///< seal what is finished at once, exit 75
};

struct StopRequest {
  Stop kind = Stop::none;
  std::string why;  ///< "SIGTERM", "the time limit of 3:55:00", "SIGUSR1 at rank 3"
};

/// Turns signals and time limits into a request that any thread can poll.
///
/// SIGTERM and SIGINT mean now (mpirun sends SIGKILL one second after SIGTERM); SIGUSR1 and the time limits
/// mean drain, which becomes now when limits.grace has passed. A further signal stops harder: drain → now,
/// and now → the process ends at once with exit code 75 (what was sealed stays). The same signal again within
/// a second counts once: launchers forward what the batch system has already sent to every rank.
///
/// One a process, made by the main thread before MPI and before any thread, because every thread must inherit
/// the blocked signals. SIGPIPE is ignored from then on. All members may be called from any thread.
class StopSignals {
 public:
  StopSignals();
  ~StopSignals();  ///< Later signals find the handlers of before.
  StopSignals(const StopSignals&) = delete;
  StopSignals& operator=(const StopSignals&) = delete;

  /// Time counts from this object's construction. Slurm's own end time (SLURM_JOB_END_TIME) counts when the
  /// environment has it: drain begins early enough for grace and sealing to end before it.
  void set_limits(const Job::Limits& limits);
  StopRequest poll() const;
  /// What another thread or rank asks for: a relayed signal, a full disk. Never softens what is already
  /// asked.
  void request(Stop kind, const std::string& why);

 private:
  struct State;
  void listen();
  void receive(int signal);

  std::unique_ptr<State> state_;
  sigset_t old_mask_{};
  void (*old_pipe_)(int) = nullptr;
  std::thread thread_;
};

}  // namespace moerun
