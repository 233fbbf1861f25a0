#pragma once
#include <array>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "fault/channel.h"
#include "fault/handshake.h"
#include "fault/reception.h"
#include "fault/watchdog.h"

namespace moerun {

/// The connections between ranks' watchdogs. Ranks 0 and 1 are hubs: they listen, and every rank above them
/// calls. They listen at the addresses that those ranks reach them by and no others (127.0.0.1 for ranks of
/// the same machine), to callers that prove themselves (handshake.h), until all have called.
///
/// Thread contract: the constructor, call_hub() and wait_for_callers() are the starting thread's; wake() any
/// thread's; the rest the watchdog's own, which starts once the rank has called the hubs below it.
class PeerNetwork {
 public:
  struct Event {
    int rank = 0;
    std::optional<Message> message;  ///< `hello` when a rank has called; none: the connection is closed
  };

  /// Listens, and tells every rank where. Collective over all; gathers twice.
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
  /// What a rank says of itself to all.
  struct Card {
    int64_t pid = 0;
    std::string network;  // ranks of the same one reach each other by its loopback
    OwnAddresses addresses;
    std::optional<Secret> secret;  // rank 0's
  };
  static Card read_card(const std::string& text);

  bool is_hub() const { return rank_ < 2 && rank_ + 1 < size_; }
  const Card& card(int rank) const { return cards_[static_cast<size_t>(rank)]; }
  const Secret& secret() const { return card(0).secret.value(); }
  bool shares_network(int rank) const;
  std::vector<std::string> places_to_listen() const;
  void greet(Reception::Arrival&& arrival, std::vector<Event>& events);
  bool all_met() const;  // with mutex_
  bool is_met(int rank);
  void read(int rank, std::vector<Event>& events);

  const int rank_, size_;
  const std::vector<std::string> hosts_;            // [size]
  std::vector<Card> cards_;                         // [size]
  std::array<std::vector<PeerAddress>, 2> places_;  // of the hubs
  Reception reception_;                             // a hub's
  FileDescriptor wake_;
  std::vector<Channel> channels_;  // [size], open between hubs and all

  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<bool> met_;    // [size] callers
  std::string turned_away_;  // the last address from which no rank calls
};

}  // namespace moerun
