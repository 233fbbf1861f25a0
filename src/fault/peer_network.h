#pragma once
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "fault/channel.h"
#include "fault/watchdog.h"

namespace moerun {

/// The connections between ranks' watchdogs. Ranks 0 and 1 are hubs: they listen, and every rank above them
/// calls.
///
/// Thread contract: the constructor, call_hub() and wait_for_callers() are the starting thread's; wake() any
/// thread's; the rest the watchdog's own, which starts once the rank has called the hubs below it.
class PeerNetwork {
 public:
  struct Event {
    int rank = 0;
    std::optional<Message> message;  ///< `hello` when a rank has called; none: the connection is closed
  };

  /// Listens, and tells every rank where. Collective over all.
  explicit PeerNetwork(const Watchdog::World& world);

  /// Throws Error naming the two ranks and each address that was tried.
  void call_hub(int hub);
  /// Until every rank above this hub has called. Throws Error naming those that have not.
  void wait_for_callers();

  /// Ends another thread's wait_for_events().
  void wake();
  /// What has come in, after `timeout` at most.
  std::vector<Event> wait_for_events(std::chrono::milliseconds timeout);
  bool is_open(int rank) const { return channels_[static_cast<size_t>(rank)].is_open(); }
  /// To a rank that is connected; else to nobody.
  void send(int rank, MessageKind kind, const std::string& body = {});
  void send_to_all(MessageKind kind, const std::string& body = {});
  void flush();
  void close();

  int rank() const { return rank_; }
  int size() const { return size_; }
  const std::string& host(int rank) const { return hosts_[static_cast<size_t>(rank)]; }
  std::string describe(int rank) const;  ///< rank, host, process id

 private:
  bool is_hub() const { return rank_ < 2 && rank_ + 1 < size_; }
  /// Whether the caller has said who it is (rightly or not); `met` gets its rank.
  bool greet_caller(Channel& caller, std::optional<int>& met);
  void read(int rank, std::vector<Event>& events);

  const int rank_, size_;
  const std::vector<std::string> hosts_;  // [size]
  std::vector<int64_t> pids_;             // [size]
  std::vector<std::string> cards_;        // [size] process id, job number, port, addresses
  uint64_t job_ = 0;                      // tells this job's calls from others
  FileDescriptor listener_, wake_;
  std::vector<Channel> channels_;  // [size], open between hubs and all
  std::vector<Channel> callers_;   // that have not said who they are

  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<bool> met_;  // [size] callers
};

}  // namespace moerun
