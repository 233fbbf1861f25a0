#pragma once
#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "fault/progress.h"
#include "fault/signals.h"

namespace moerun {

/// A host-only thread of every rank that ends the whole job, with one line that names the rank, when a rank
/// dies, stops, hangs or throws.
///
/// Ranks send heartbeats (phase, step, how long the engine thread has made no progress) to rank 0 and to rank
/// 1 over TCP, and get theirs; rank 0 decides, rank 1 does when rank 0 is the one that is gone, the others
/// when both are. A closed socket is noticed at once, silence after `silence`, an engine thread without
/// progress after its phase's limit. Every process then ends itself with _exit: nothing is waited for that
/// MPI or a GPU would have to answer. A rank whose launcher is gone ends itself too.
///
/// Thread contract: every member may be called from any thread. Never touches CUDA or MPI after construction.
class Watchdog {
 public:
  struct World {
    int rank = 0, size = 1;
    std::vector<std::string> hosts;  ///< [size]
    /// Every rank's text in rank order; called once, by the constructor, at every rank.
    std::function<std::vector<std::string>(const std::string&)> all_gather;
  };
  struct Options {
    std::chrono::milliseconds silence{10000};  ///< without a heartbeat
    std::chrono::milliseconds beat{500};       ///< between heartbeats
    /// Longest time without progress of the engine thread in Phase::run and drain, or twenty times the
    /// longest that was seen and passed, whichever is longer. Other phases: see watchdog.cpp.
    std::chrono::seconds step_limit{120};
    /// Seals what is finished. Rank 0, once, on a thread of its own while the process is about to end; it may
    /// take `seal_limit`.
    std::function<void()> on_fault;
    std::chrono::milliseconds seal_limit{2500};
    /// Requests that arrive at other ranks are handed to rank 0's; may be null.
    StopSignals* signals = nullptr;
  };

  /// Connects to the other ranks. Throws Error naming ranks that cannot be reached.
  Watchdog(const World& world, Options options);
  /// close(), unless an error is being thrown: then the job is ended with it.
  ~Watchdog();
  Watchdog(const Watchdog&) = delete;
  Watchdog& operator=(const Watchdog&) = delete;

  /// For the engine thread, and for what it waits in (collectives, exchanges).
  Progress& progress() { return progress_; }
  void set_phase(Phase phase) { progress_.enter(phase); }
  void beat(int64_t step) { progress_.begin_step(step); }

  /// Sets what seals the results, when it exists only later than the watchdog; null: nothing does any more.
  void set_on_fault(std::function<void()> on_fault);

  /// Ends the job on every rank with `exit_code`. The first message of all ranks is printed, by rank 0, once.
  [[noreturn]] void fail(const std::string& message, int exit_code = 1);

  /// The normal end: waits until every rank says goodbye, then watches no more. Call it last (MPI_Finalize
  /// may come before it and is then watched too).
  void close();

 private:
  class Thread;
  Progress progress_;
  std::unique_ptr<Thread> thread_;
};

}  // namespace moerun
