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
/// Every rank exchanges heartbeats (phase, step, how long the engine thread has made no progress) with rank 0
/// and with rank 1, over TCP of its own, which is open to the job's ranks alone (peer_network.h). Rank 0
/// decides; rank 1 does when rank 0 is the one that is gone; the others when both are. A closed connection is
/// noticed at once, silence after Options::silence, an engine thread without progress after its phase's
/// limit. Then every process ends itself with _exit: nothing is waited for that MPI or a GPU would have to
/// answer. A rank whose launcher is gone ends too.
///
/// Thread contract: every member may be called from any thread. Touches neither CUDA nor MPI once
/// constructed.
class Watchdog {
 public:
  struct World {
    int rank = 0, size = 1;
    std::vector<std::string> hosts;  ///< [size]
    /// Every rank's text in rank order; called twice, by the constructor, at every rank.
    std::function<std::vector<std::string>(const std::string&)> all_gather;
  };
  struct Options {
    std::chrono::milliseconds silence{10000};  ///< without a heartbeat
    std::chrono::milliseconds beat{500};       ///< between heartbeats
    /// Without progress of the engine thread while it runs steps; or twenty times the longest pause that it
    /// has made so far, if that is longer.
    std::chrono::milliseconds step_limit{120000};
    /// The same for phases whose pauses are long by nature: load, warm-up. Merge has no limit, and the start
    /// one when every rank waits: step_limit.
    std::chrono::milliseconds load_limit{600000};
    std::chrono::milliseconds seal_limit{2500};  ///< for on_fault
    /// Requests that arrive at other ranks are handed to rank 0's; may be null. Must outlive the watchdog.
    StopSignals* signals = nullptr;
  };

  /// Connects to the other ranks. Collective over all. Throws Error naming ranks that cannot be reached.
  Watchdog(const World& world, const Options& options);
  /// Watches no more. Without close() before, the other ranks take this one for dead.
  ~Watchdog();
  Watchdog(const Watchdog&) = delete;
  Watchdog& operator=(const Watchdog&) = delete;

  /// For the engine thread, and for what it waits in (collectives, exchanges).
  Progress& progress() { return progress_; }
  void set_phase(Phase phase) { progress_.enter(phase); }
  void begin_step(int64_t step) { progress_.begin_step(step); }

  /// What seals the finished results when the job ends by a fault. Rank 0; runs once, on a thread of its own,
  /// for Options::seal_limit at most, while the other threads still run; what it refers to must live until
  /// null takes it away or fail() does not return.
  void set_on_fault(std::function<void()> on_fault);

  /// Ends the job on every rank with `exit_code`. Of all ranks' messages the first is printed, by rank 0,
  /// once.
  [[noreturn]] void fail(const std::string& message, int exit_code = 1);

  /// The normal end: waits until every rank has come to it, then watches no more. When MPI_Finalize comes
  /// before it, that is watched too.
  void close();

 private:
  Progress progress_;
  std::unique_ptr<class Monitor> monitor_;
};

}  // namespace moerun
