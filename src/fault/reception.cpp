#include "fault/reception.h"

#include <fmt/format.h>

#include "moerun/error.h"

namespace moerun {

Reception::Reception(const std::vector<std::string>& addresses, const Secret& secret) : secret_(secret) {
  for (const std::string& address : addresses) {
    listeners_.push_back(listen_on(address));
    places_.push_back({address, port_of(listeners_.back())});
  }
}

std::vector<PeerAddress> Reception::places() const { return places_; }

std::vector<pollfd> Reception::fds() const {
  std::vector<pollfd> fds;
  for (const FileDescriptor& listener : listeners_) fds.push_back({listener.get(), POLLIN, 0});
  for (const Caller& caller : callers_) fds.push_back({caller.channel.fd(), POLLIN, 0});
  return fds;
}

std::vector<Reception::Arrival> Reception::handle(std::span<const pollfd> fds,
                                                  const std::function<bool(int rank)>& expects) {
  std::vector<Arrival> arrivals;
  if (!is_open()) return arrivals;
  const auto now = Clock::now();
  // Those that are here before those to come, who might take their room.
  std::deque<Caller> waiting;
  for (size_t c = 0; c < callers_.size(); ++c) {
    Caller& caller = callers_[c];
    const bool spoke = fds[listeners_.size() + c].revents != 0;
    if (spoke && (!caller.channel.receive() || hear(caller, expects, arrivals))) continue;
    if (now - caller.since < kProofTime) waiting.push_back(std::move(caller));
  }
  callers_ = std::move(waiting);
  for (size_t l = 0; l < listeners_.size(); ++l) {
    if (fds[l].revents != 0) accept_callers(listeners_[l], now);
  }
  return arrivals;
}

void Reception::accept_callers(const FileDescriptor& listener, Clock::time_point now) {
  for (int i = 0; i < kMostAccepted; ++i) {
    auto met = accept_from(listener);
    if (!met) return;
    if (!admitted_.contains(met->address)) {
      ++num_turned_away_;
      last_turned_away_ = met->address;
      continue;
    }
    if (callers_.size() >= kMostCallers) callers_.pop_front();
    Caller& caller =
        callers_.emplace_back(Caller{Channel(std::move(met->socket), sizeof(Hello)), draw_nonce(), now});
    caller.channel.send(MessageKind::challenge, as_body(Challenge{caller.nonce}));
  }
}

bool Reception::hear(Caller& caller, const std::function<bool(int rank)>& expects,
                     std::vector<Arrival>& arrivals) const {
  Hello hello;
  try {
    const auto message = caller.channel.next();
    if (!message) return false;
    if (message->kind != MessageKind::hello) return true;
    copy_body(*message, &hello, sizeof hello);
  } catch (const Error&) {
    return true;  // whoever that is, it is none of us
  }
  if (!is_same(hello.proof, prove(secret_, Side::caller, hello.rank, caller.nonce, hello.caller)) ||
      !expects(hello.rank))
    return true;
  caller.channel.trust();
  caller.channel.send(MessageKind::welcome,
                      as_body(Welcome{prove(secret_, Side::hub, hello.rank, caller.nonce, hello.caller)}));
  arrivals.push_back({hello.rank, std::move(caller.channel)});
  return true;
}

void Reception::close() {
  listeners_.clear();
  callers_.clear();
}

Channel call_reception(const PeerAddress& place, const Secret& secret, int rank,
                       std::chrono::milliseconds timeout) {
  const auto fail = [&](const std::string& why) {
    return Error(fmt::format("{}:{}: {}", place.address, place.port, why));
  };
  constexpr size_t kMostBody = std::max(sizeof(Challenge), sizeof(Welcome));
  Channel channel = connect_to(place.address, place.port, timeout, kMostBody);
  try {
    Challenge challenge;
    copy_body(wait_for_message(channel, timeout), &challenge, sizeof challenge);
    Hello hello{.rank = rank, .caller = draw_nonce()};
    hello.proof = prove(secret, Side::caller, rank, challenge.hub, hello.caller);
    channel.send(MessageKind::hello, as_body(hello));
    const Message answer = wait_for_message(channel, timeout);
    Welcome welcome;
    copy_body(answer, &welcome, sizeof welcome);
    if (answer.kind != MessageKind::welcome ||
        !is_same(welcome.proof, prove(secret, Side::hub, rank, challenge.hub, hello.caller)))
      throw Error("somebody else answers there");
  } catch (const Error& error) {
    throw fail(error.what());
  }
  channel.trust();
  return channel;
}

}  // namespace moerun
