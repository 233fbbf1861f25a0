#pragma once
#include <chrono>
#include <condition_variable>
#include <functional>
#include <future>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "fault/peer_network.h"
#include "fault/progress.h"
#include "fault/watchdog.h"

namespace moerun {

/// The watchdog's thread (watchdog.h says what it is for): what it makes of what the others say and do not
/// say.
class Monitor {
 public:
  Monitor(const Watchdog::World& world, const Watchdog::Options& options, Progress& progress);
  ~Monitor();
  Monitor(const Monitor&) = delete;
  Monitor& operator=(const Monitor&) = delete;

  void set_on_fault(std::function<void()> on_fault);
  [[noreturn]] void fail(const std::string& message, int exit_code);
  void close();

 private:
  static constexpr std::chrono::seconds kFollowTimeout{4};  // for the rank that ends the job to be gone
  static constexpr std::chrono::seconds kOwnPause{
      2};  // this process was stopped: the others are not to blame
  using Clock = std::chrono::steady_clock;

  /// What a heartbeat carries, as it lies in memory.
  struct Beat {
    Phase phase = Phase::start;
    bool waiting = false;
    int64_t step = 0;
    int64_t pause_ms = 0;  // since the engine thread's last progress
    int64_t limit_ms = 0;  // that the pause may have; 0: any
  };
  struct Peer {
    Beat last;
    Clock::time_point heard;
    bool goodbye = false;
    bool lost = false;
  };
  struct Failure {
    int rank = 0;
    std::string message;
    int exit_code = 1;
    Clock::time_point due;  // when it is printed, unless a dead peer explains it
  };

  Peer& peer(int rank) { return peers_[static_cast<size_t>(rank)]; }

  void stop();

  // The thread.
  void watch();
  void handle_events();
  void handle(int rank, const Message& message);
  void tick(Clock::time_point now);
  Beat measure(Clock::time_point now);
  void check_silence(Clock::time_point now);
  void check_hangs(const Beat& mine);
  void check_start();
  void check_launcher();
  void check_failure(Clock::time_point now);
  void check_last_resort(Clock::time_point now);
  void relay_stop();
  void check_farewell();
  bool any_open(const std::function<bool(const Peer&)>& of) const;
  void wait_until_peers_close();

  // The end.
  void lost(int rank, const std::string& how);
  std::string position(int rank);  // phase, step
  /// Prints the line (unless empty), tells the others, seals, ends the process.
  [[noreturn]] void end_job(const std::string& line, int exit_code);
  /// Another rank has said that the job ends: waits until it is gone, so that it can seal, and follows.
  [[noreturn]] void follow(int leader, int exit_code);
  void wait_for_followers();
  std::future<void> start_sealing();

  const int rank_, size_;
  const Watchdog::Options options_;
  Progress& progress_;
  PeerNetwork network_;
  std::vector<Peer> peers_;  // [size]
  pid_t launcher_;           // to watch; 0: there is none

  // Of the thread alone.
  Clock::time_point last_tick_, last_beat_, last_progress_;
  uint64_t last_beats_ = 0;
  Phase last_phase_ = Phase::start, told_phase_ = Phase::start;
  std::chrono::milliseconds longest_pause_{0};  // in this phase
  Stop relayed_ = Stop::none;
  bool said_goodbye_ = false, done_ = false, ending_ = false;
  bool node_gone_ = false;                        // perhaps: a rank of another host is silent
  std::optional<Failure> reported_;               // the first of all ranks (rank 0), or this rank's own
  std::string rank0_how_;                         // how rank 0 was lost
  std::optional<Clock::time_point> last_resort_;  // when this rank speaks, should no hub do so

  // Between threads.
  std::mutex mutex_;
  std::condition_variable changed_;
  bool closing_ = false, closed_ = false, stop_ = false;
  std::optional<Failure> failure_;
  std::function<void()> on_fault_;

  std::thread thread_;
};

}  // namespace moerun
