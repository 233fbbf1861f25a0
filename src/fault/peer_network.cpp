#include "fault/peer_network.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <sstream>
#include <thread>

#include "moerun/error.h"

namespace moerun {

namespace {

constexpr std::chrono::seconds kCallTimeout{3};    // one address
constexpr std::chrono::seconds kCallsTimeout{20};  // a hub that hangs up may be busy with strangers
constexpr std::chrono::milliseconds kCallPause{20};
constexpr std::chrono::seconds kMeetTimeout{60};  // all ranks

/// What processes with the same network have in common and no others: the boot of their kernel, and their
/// network namespace. The host's name where the system does not say.
std::string own_network(const std::string& host) {
  std::ifstream file("/proc/sys/kernel/random/boot_id");
  std::string boot;
  struct stat space = {};
  if (!(file >> boot) || stat("/proc/self/ns/net", &space) != 0) return "host:" + host;
  return fmt::format("{}:{}", boot, space.st_ino);
}

}  // namespace

PeerNetwork::Card PeerNetwork::read_card(const std::string& text) {
  Card card;
  std::istringstream words(text);
  std::string secret;
  size_t others = 0;
  words >> card.pid >> card.network >> secret >> others;
  if (secret != "-") card.secret = secret_from_hex(secret);
  for (std::string address; words >> address;)
    (card.addresses.others.size() < others ? card.addresses.others : card.addresses.loopback)
        .push_back(address);
  return card;
}

PeerNetwork::PeerNetwork(const Watchdog::World& world)
    : rank_(world.rank),
      size_(world.size),
      hosts_(world.hosts),
      wake_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)),
      channels_(static_cast<size_t>(world.size)),
      met_(static_cast<size_t>(world.size)) {
  if (!wake_) throw Error("watchdog: cannot make a file descriptor");

  // Who is where, and rank 0's secret.
  const OwnAddresses own = own_addresses();
  const std::string card = fmt::format("{} {} {} {} {} {}", getpid(), own_network(host(rank_)),
                                       rank_ == 0 ? to_hex(draw_secret()) : "-", own.others.size(),
                                       fmt::join(own.others, " "), fmt::join(own.loopback, " "));
  for (const std::string& text : world.all_gather(card)) cards_.push_back(read_card(text));

  // Where the hubs can be called; the others say nothing.
  std::string places;
  if (is_hub()) {
    reception_ = Reception(places_to_listen(), secret());
    std::set<std::string> admitted;
    for (int r = rank_ + 1; r < size_; ++r) {
      const OwnAddresses& of = this->card(r).addresses;
      admitted.insert(of.others.begin(), of.others.end());
      if (shares_network(r)) admitted.insert(of.loopback.begin(), of.loopback.end());
    }
    reception_.admit(std::move(admitted));
    for (const PeerAddress& place : reception_.places())
      places += fmt::format("{} {} ", place.address, place.port);
  }
  const std::vector<std::string> told = world.all_gather(places);
  for (int hub = 0; hub < std::min(2, size_); ++hub) {
    std::istringstream words(told[static_cast<size_t>(hub)]);
    for (PeerAddress place; words >> place.address >> place.port;)
      places_[static_cast<size_t>(hub)].push_back(place);
  }
}

bool PeerNetwork::shares_network(int rank) const { return card(rank).network == card(rank_).network; }

std::vector<std::string> PeerNetwork::places_to_listen() const {
  const OwnAddresses& own = card(rank_).addresses;
  bool near = false, far = false;
  std::set<std::string> elsewhere;  // addresses that other networks have too (of bridges of containers)
  for (int r = rank_ + 1; r < size_; ++r) {
    (shares_network(r) ? near : far) = true;
    if (!shares_network(r))
      elsewhere.insert(card(r).addresses.others.begin(), card(r).addresses.others.end());
  }
  std::vector<std::string> places;
  for (const std::string& address : own.others)
    if ((far && !elsewhere.contains(address)) || (near && own.loopback.empty())) places.push_back(address);
  if (near && !own.loopback.empty()) places.push_back(own.loopback.front());
  return places;
}

void PeerNetwork::call_hub(int hub) {
  const auto end = std::chrono::steady_clock::now() + kCallsTimeout;
  std::string tried;
  while (true) {
    tried.clear();
    for (const PeerAddress& place : places_[static_cast<size_t>(hub)]) {
      const bool loopback = place.address.starts_with("127.");
      if (loopback && !shares_network(hub)) continue;
      try {
        channels_[static_cast<size_t>(hub)] = call_reception(place, secret(), rank_, kCallTimeout);
        return;
      } catch (const Error& error) {
        tried += fmt::format("{}{}", tried.empty() ? "" : "; ", error.what());
      }
    }
    if (std::chrono::steady_clock::now() >= end) break;
    std::this_thread::sleep_for(kCallPause);
  }
  throw Error(fmt::format("watchdog: rank {} (host {}) cannot reach rank {} (host {}) over TCP: {}", rank_,
                          host(rank_), hub, host(hub), tried.empty() ? "it has no address" : tried));
}

void PeerNetwork::greet(Reception::Arrival&& arrival, std::vector<Event>& events) {
  channels_[static_cast<size_t>(arrival.rank)] = std::move(arrival.channel);
  events.push_back({arrival.rank, Message{MessageKind::hello, {}}});
  const std::scoped_lock lock(mutex_);
  met_[static_cast<size_t>(arrival.rank)] = true;
  changed_.notify_all();
  // The port has done its work.
  if (all_met()) reception_.close();
}

bool PeerNetwork::all_met() const {
  return std::find(met_.begin() + rank_ + 1, met_.end(), false) == met_.end();
}

void PeerNetwork::wait_for_callers() {
  if (!is_hub()) return;
  std::unique_lock lock(mutex_);
  if (changed_.wait_for(lock, kMeetTimeout, [this] { return all_met(); })) return;
  std::string missing;
  for (int r = rank_ + 1; r < size_; ++r) {
    if (!met_[static_cast<size_t>(r)]) missing += (missing.empty() ? "" : ", ") + describe(r);
  }
  throw Error(fmt::format("watchdog: not heard of within {} s: {}{}", kMeetTimeout.count(), missing,
                          turned_away_.empty() ? ""
                                               : fmt::format(" (calls from {} were turned away: no rank of "
                                                             "the job says that this is its address)",
                                                             turned_away_)));
}

void PeerNetwork::wake() {
  const uint64_t one = 1;
  if (write(wake_.get(), &one, sizeof one) < 0) return;  // it is full of wake-ups already
}

std::vector<PeerNetwork::Event> PeerNetwork::wait_for_events(std::chrono::milliseconds timeout) {
  std::vector<Event> events;
  std::vector<pollfd> fds{{wake_.get(), POLLIN, 0}};
  std::vector<int> who{rank_};
  for (int r = 0; r < size_; ++r) {
    if (!is_open(r)) continue;
    fds.push_back({channels_[static_cast<size_t>(r)].fd(), POLLIN, 0});
    who.push_back(r);
  }
  const size_t num_peers = fds.size();
  const std::vector<pollfd> reception = reception_.fds();
  fds.insert(fds.end(), reception.begin(), reception.end());
  // Nobody speaks, and yet those who do not prove themselves must go.
  if (::poll(fds.data(), fds.size(), static_cast<int>(timeout.count())) < 0) return events;

  uint64_t wake_ups = 0;
  if (fds[0].revents != 0 && ::read(wake_.get(), &wake_ups, sizeof wake_ups) < 0) return events;
  for (size_t i = 1; i < num_peers; ++i) {
    if (fds[i].revents != 0) read(who[i], events);
  }
  const auto expects = [this](int rank) { return rank > rank_ && rank < size_ && !is_met(rank); };
  for (Reception::Arrival& arrival : reception_.handle(std::span(fds).subspan(num_peers), expects))
    greet(std::move(arrival), events);
  if (reception_.num_turned_away() > 0) {
    const std::scoped_lock lock(mutex_);
    turned_away_ = reception_.last_turned_away();
  }
  return events;
}

bool PeerNetwork::is_met(int rank) {
  const std::scoped_lock lock(mutex_);
  return met_[static_cast<size_t>(rank)];
}

void PeerNetwork::read(int rank, std::vector<Event>& events) {
  Channel& channel = channels_[static_cast<size_t>(rank)];
  bool open = channel.receive();
  try {
    while (auto message = channel.next()) events.push_back({rank, std::move(message)});
  } catch (const Error&) {
    open = false;  // what comes there is no rank's any more
  }
  if (open) return;
  channel.close();
  events.push_back({rank, std::nullopt});
}

void PeerNetwork::send(int rank, MessageKind kind, const std::string& body) {
  if (is_open(rank)) channels_[static_cast<size_t>(rank)].send(kind, body);
}

void PeerNetwork::send_to_all(MessageKind kind, const std::string& body) {
  for (int r = 0; r < size_; ++r) send(r, kind, body);
}

void PeerNetwork::flush() {
  for (Channel& channel : channels_) channel.flush();
}

void PeerNetwork::close() {
  for (Channel& channel : channels_) channel.close();
}

std::string PeerNetwork::describe(int rank) const {
  return fmt::format("rank {} (host {}, pid {})", rank, host(rank), card(rank).pid);
}

}  // namespace moerun
