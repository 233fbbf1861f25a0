#pragma once
#include <poll.h>

#include <chrono>
#include <deque>
#include <functional>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "fault/channel.h"
#include "fault/handshake.h"

namespace moerun {

/// A place to call: an address with a port.
struct PeerAddress {
  std::string address;
  uint16_t port = 0;
};

/// Where a hub is called, until every caller is there and it closes. Whoever can reach the port may call;
/// what a stranger gets is bounded: addresses that are none of the job's are closed at once, and the others
/// have kProofTime, kMostCallers connections and the bytes of one hello to prove that they know the job's
/// secret. Thread contract: one thread.
class Reception {
 public:
  static constexpr size_t kMostCallers = 256;  ///< unproven at once; then the oldest makes room
  static constexpr int kMostAccepted = 32;     ///< of a listener, between two looks at the others
  static constexpr std::chrono::seconds kProofTime{3};

  struct Arrival {
    int rank = 0;
    Channel channel;
  };

  /// Listens nowhere.
  Reception() = default;
  /// Listens on a port of each of `addresses`. Throws Error.
  Reception(const std::vector<std::string>& addresses, const Secret& secret);

  bool is_open() const { return !listeners_.empty(); }
  std::vector<PeerAddress> places() const;
  /// The addresses from which the job's ranks call; others are turned away.
  void admit(std::set<std::string> addresses) { admitted_ = std::move(addresses); }

  /// What to poll for. [listeners, callers]
  std::vector<pollfd> fds() const;
  /// What has come in, by fds() after poll. `expects`: whether a rank may still arrive.
  std::vector<Arrival> handle(std::span<const pollfd> fds, const std::function<bool(int rank)>& expects);
  /// Turns everybody away from now on.
  void close();

  uint64_t num_turned_away() const { return num_turned_away_; }  ///< by their addresses
  const std::string& last_turned_away() const { return last_turned_away_; }

 private:
  using Clock = std::chrono::steady_clock;
  struct Caller {
    Channel channel;
    Nonce nonce{};
    Clock::time_point since;
  };

  void accept_callers(const FileDescriptor& listener, Clock::time_point now);
  /// Whether the caller has said who it is, rightly (then it is in `arrivals`) or not.
  bool hear(Caller& caller, const std::function<bool(int rank)>& expects,
            std::vector<Arrival>& arrivals) const;

  std::vector<FileDescriptor> listeners_;
  std::vector<PeerAddress> places_;
  std::set<std::string> admitted_;
  Secret secret_{};
  std::deque<Caller> callers_;  // oldest first
  uint64_t num_turned_away_ = 0;
  std::string last_turned_away_;
};

/// Calls a hub as `rank`; both sides have proven themselves when it returns. Throws Error naming the place.
Channel call_reception(const PeerAddress& place, const Secret& secret, int rank,
                       std::chrono::milliseconds timeout);

}  // namespace moerun
