#include "fault/channel.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <memory>

#include "moerun/error.h"

namespace moerun {

namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

struct Header {
  MessageKind kind;
  uint32_t size;
};

Error system_error(const std::string& what) {
  return Error(fmt::format("{}: {}", what, std::strerror(errno)));
}

sockaddr_in socket_address(const std::string& address, uint16_t port) {
  sockaddr_in to{};
  to.sin_family = AF_INET;
  to.sin_port = htons(port);
  if (inet_pton(AF_INET, address.c_str(), &to.sin_addr) != 1) {
    throw Error(fmt::format("'{}' is no IPv4 address", address));
  }
  return to;
}

std::string text_of(const sockaddr_in& address) {
  std::array<char, INET_ADDRSTRLEN> text{};
  inet_ntop(AF_INET, &address.sin_addr, text.data(), text.size());
  return text.data();
}

/// Waits for `events`; false when the time is over.
bool wait_for(int fd, short events, milliseconds timeout) {
  const auto end = Clock::now() + timeout;
  while (true) {
    const auto left = std::chrono::ceil<milliseconds>(end - Clock::now());
    pollfd poll_fd{fd, events, 0};
    const int ready = ::poll(&poll_fd, 1, static_cast<int>(std::max<int64_t>(0, left.count())));
    if (ready > 0) return true;
    if (ready == 0) return false;
    if (errno != EINTR) throw system_error("poll");
  }
}

}  // namespace

size_t MessageBuffer::room() const {
  const size_t most = sizeof(Header) + most_body_;
  return bytes_.size() < most ? most - bytes_.size() : 0;
}

std::optional<Message> MessageBuffer::next() {
  Header header{};
  if (bytes_.size() < sizeof header) return std::nullopt;
  std::memcpy(&header, bytes_.data(), sizeof header);
  if (header.kind > MessageKind::goodbye || header.size > most_body_)
    throw Error("a message that is none of ours");
  if (bytes_.size() < sizeof header + header.size) return std::nullopt;
  Message message{header.kind, bytes_.substr(sizeof header, header.size)};
  bytes_.erase(0, sizeof header + header.size);
  return message;
}

Channel::Channel(FileDescriptor socket, size_t most_body) : socket_(std::move(socket)), in_(most_body) {
  const int on = 1;
  setsockopt(fd(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  fcntl(fd(), F_SETFL, fcntl(fd(), F_GETFL) | O_NONBLOCK);
}

void Channel::send(MessageKind kind, const std::string& body) {
  out_ += as_body(Header{kind, static_cast<uint32_t>(body.size())}) + body;
  flush();
}

void Channel::flush() {
  while (is_open() && !out_.empty()) {
    const ssize_t sent = ::send(fd(), out_.data(), out_.size(), MSG_NOSIGNAL);
    if (sent < 0 && errno == EINTR) continue;
    if (sent < 0) return;  // full: later; broken: receive() says so
    out_.erase(0, static_cast<size_t>(sent));
  }
}

bool Channel::receive() {
  std::array<char, 4096> buffer{};
  while (const size_t room = std::min(in_.room(), buffer.size())) {
    const ssize_t got = recv(fd(), buffer.data(), room, 0);
    if (got > 0) {
      in_.append(buffer.data(), static_cast<size_t>(got));
    } else if (got < 0 && errno == EINTR) {
      continue;
    } else {
      return got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK);
    }
  }
  return true;  // the rest when what is here was taken
}

void copy_body(const Message& message, void* to, size_t size) {
  if (message.body.size() != size) throw Error("a message of another size than ours");
  std::memcpy(to, message.body.data(), size);
}

FileDescriptor listen_on(const std::string& address) {
  FileDescriptor listener(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  const sockaddr_in at = socket_address(address, 0);
  if (!listener || bind(listener.get(), reinterpret_cast<const sockaddr*>(&at), sizeof at) != 0 ||
      listen(listener.get(), SOMAXCONN) != 0) {
    throw system_error(fmt::format("watchdog: cannot listen on a TCP port of {}", address));
  }
  return listener;
}

uint16_t port_of(const FileDescriptor& socket) {
  sockaddr_in address{};
  socklen_t size = sizeof address;
  if (getsockname(socket.get(), reinterpret_cast<sockaddr*>(&address), &size) != 0) {
    throw system_error("getsockname");
  }
  return ntohs(address.sin_port);
}

std::optional<Caller> accept_from(const FileDescriptor& listener) {
  sockaddr_in from{};
  socklen_t size = sizeof from;
  FileDescriptor socket(
      accept4(listener.get(), reinterpret_cast<sockaddr*>(&from), &size, SOCK_CLOEXEC | SOCK_NONBLOCK));
  if (!socket) return std::nullopt;
  return Caller{std::move(socket), text_of(from)};
}

OwnAddresses own_addresses() {
  ifaddrs* list = nullptr;
  if (getifaddrs(&list) != 0) throw system_error("getifaddrs");
  const std::unique_ptr<ifaddrs, decltype(&freeifaddrs)> guard(list, freeifaddrs);
  OwnAddresses own;
  for (const ifaddrs* at = list; at; at = at->ifa_next) {
    if (!at->ifa_addr || at->ifa_addr->sa_family != AF_INET || !(at->ifa_flags & IFF_UP)) continue;
    sockaddr_in address{};
    std::memcpy(&address, at->ifa_addr, sizeof address);
    (at->ifa_flags & IFF_LOOPBACK ? own.loopback : own.others).push_back(text_of(address));
  }
  return own;
}

Channel connect_to(const std::string& address, uint16_t port, milliseconds timeout, size_t most_body) {
  FileDescriptor socket(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!socket) throw system_error("socket");
  const sockaddr_in to = socket_address(address, port);
  if (connect(socket.get(), reinterpret_cast<const sockaddr*>(&to), sizeof to) != 0) {
    if (errno != EINPROGRESS) throw system_error(fmt::format("{}:{}", address, port));
    if (!wait_for(socket.get(), POLLOUT, timeout))
      throw Error(fmt::format("{}:{}: no answer", address, port));
    int fault = 0;
    socklen_t size = sizeof fault;
    getsockopt(socket.get(), SOL_SOCKET, SO_ERROR, &fault, &size);
    if (fault != 0) throw Error(fmt::format("{}:{}: {}", address, port, std::strerror(fault)));
  }
  return Channel(std::move(socket), most_body);
}

Message wait_for_message(Channel& channel, milliseconds timeout) {
  const auto end = Clock::now() + timeout;
  while (true) {
    if (auto message = channel.next()) return *message;
    const auto left = std::chrono::ceil<milliseconds>(end - Clock::now());
    if (left.count() <= 0 || !wait_for(channel.fd(), POLLIN, left)) throw Error("no answer");
    if (!channel.receive()) throw Error("connection closed");
  }
}

}  // namespace moerun
