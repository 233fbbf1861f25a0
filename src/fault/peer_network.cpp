#include "fault/peer_network.h"

#include <fmt/format.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/random.h>
#include <unistd.h>

#include <algorithm>
#include <sstream>

#include "moerun/error.h"

namespace moerun {

namespace {

constexpr std::chrono::seconds kCallTimeout{3};   // one address
constexpr std::chrono::seconds kMeetTimeout{60};  // all ranks

struct Hello {
  uint64_t job = 0;
  int32_t rank = 0;
};

}  // namespace

PeerNetwork::PeerNetwork(const Watchdog::World& world)
    : rank_(world.rank),
      size_(world.size),
      hosts_(world.hosts),
      pids_(static_cast<size_t>(world.size)),
      wake_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)),
      channels_(static_cast<size_t>(world.size)),
      met_(static_cast<size_t>(world.size)) {
  if (!wake_) throw Error("watchdog: cannot make a file descriptor");
  if (is_hub()) listener_ = listen_anywhere();
  if (getrandom(&job_, sizeof job_, 0) != static_cast<ssize_t>(sizeof job_))
    throw Error("watchdog: getrandom");

  std::string card = fmt::format("{} {} {}", getpid(), job_, listener_ ? port_of(listener_) : 0);
  if (listener_) {
    for (const std::string& address : own_addresses()) card += " " + address;
  }
  cards_ = world.all_gather(card);
  for (size_t r = 0; r < cards_.size(); ++r) {
    std::istringstream words(cards_[r]);
    uint64_t job = 0;
    words >> pids_[r] >> job;
    if (r == 0) job_ = job;
  }
}

void PeerNetwork::call_hub(int hub) {
  std::istringstream words(cards_[static_cast<size_t>(hub)]);
  int64_t pid = 0;
  uint64_t job = 0;
  uint16_t port = 0;
  words >> pid >> job >> port;
  std::string address, tried;
  // A hub may list addresses that exist on other machines too: only its own welcome counts.
  while (words >> address) {
    try {
      Channel channel = connect_to(address, port, kCallTimeout);
      channel.send(MessageKind::hello, as_body(Hello{job_, rank_}));
      if (wait_for_message(channel, kCallTimeout).kind != MessageKind::welcome) throw Error("no welcome");
      channels_[static_cast<size_t>(hub)] = std::move(channel);
      return;
    } catch (const Error& error) {
      tried += fmt::format("{}{}", tried.empty() ? "" : "; ", error.what());
    }
  }
  throw Error(fmt::format("watchdog: rank {} (host {}) cannot reach rank {} (host {}) over TCP: {}", rank_,
                          host(rank_), hub, host(hub), tried));
}

bool PeerNetwork::greet_caller(Channel& caller, std::optional<int>& met) {
  Hello hello;
  try {
    const auto message = caller.next();
    if (!message) return false;
    if (message->kind != MessageKind::hello) return true;
    copy_body(*message, &hello, sizeof hello);
  } catch (const Error&) {
    return true;  // whoever that is, it is none of us
  }
  if (hello.job != job_ || hello.rank <= rank_ || hello.rank >= size_) return true;
  caller.send(MessageKind::welcome);
  channels_[static_cast<size_t>(hello.rank)] = std::move(caller);
  met = hello.rank;
  const std::scoped_lock lock(mutex_);
  met_[static_cast<size_t>(hello.rank)] = true;
  changed_.notify_all();
  return true;
}

void PeerNetwork::wait_for_callers() {
  if (!is_hub()) return;
  std::unique_lock lock(mutex_);
  const auto all_met = [this] {
    return std::find(met_.begin() + rank_ + 1, met_.end(), false) == met_.end();
  };
  if (changed_.wait_for(lock, kMeetTimeout, all_met)) return;
  std::string missing;
  for (int r = rank_ + 1; r < size_; ++r) {
    if (!met_[static_cast<size_t>(r)]) missing += (missing.empty() ? "" : ", ") + describe(r);
  }
  throw Error(fmt::format("watchdog: not heard of within {} s: {}", kMeetTimeout.count(), missing));
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
  const size_t first_caller = fds.size();
  for (const Channel& caller : callers_) fds.push_back({caller.fd(), POLLIN, 0});
  if (listener_) fds.push_back({listener_.get(), POLLIN, 0});
  if (::poll(fds.data(), fds.size(), static_cast<int>(timeout.count())) <= 0) return events;

  uint64_t wake_ups = 0;
  if (fds[0].revents != 0 && ::read(wake_.get(), &wake_ups, sizeof wake_ups) < 0) return events;
  for (size_t i = 1; i < first_caller; ++i) {
    if (fds[i].revents != 0) read(who[i], events);
  }
  std::vector<Channel> unknown;
  for (size_t c = 0; c < callers_.size(); ++c) {
    std::optional<int> met;
    const bool spoke = fds[first_caller + c].revents != 0;
    const bool done = spoke && (!callers_[c].receive() || greet_caller(callers_[c], met));
    if (met) events.push_back({*met, Message{MessageKind::hello, {}}});
    if (!done) unknown.push_back(std::move(callers_[c]));
  }
  callers_ = std::move(unknown);
  if (listener_ && fds.back().revents != 0) {
    if (auto caller = accept_from(listener_)) callers_.push_back(std::move(*caller));
  }
  return events;
}

void PeerNetwork::read(int rank, std::vector<Event>& events) {
  Channel& channel = channels_[static_cast<size_t>(rank)];
  const bool open = channel.receive();
  while (auto message = channel.next()) events.push_back({rank, std::move(message)});
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
  return fmt::format("rank {} (host {}, pid {})", rank, host(rank), pids_[static_cast<size_t>(rank)]);
}

}  // namespace moerun
