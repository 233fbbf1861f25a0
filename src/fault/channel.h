#pragma once
#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/file_descriptor.h"

namespace moerun {

/// What ranks' watchdogs tell each other.
enum class MessageKind : uint32_t {
  challenge,  ///< first one on a connection, from the hub (handshake.h)
  hello,      ///< who calls, and that it is of this job
  welcome,    ///< the answer: this is the rank that was meant
  beat,       ///< still here, and how far
  stop,       ///< a stop request arrived here
  failure,    ///< an error was thrown here
  end,        ///< the job ends, with an exit code
  goodbye,    ///< nothing more will come, and nothing is wrong
};

struct Message {
  MessageKind kind = MessageKind::beat;
  std::string body;
};

/// The bytes of a connection as messages.
class MessageBuffer {
 public:
  static constexpr size_t kMostBody = 1 << 20;  ///< an error's text; more is not one of ours

  explicit MessageBuffer(size_t most_body = kMostBody) : most_body_(most_body) {}

  void set_most_body(size_t bytes) { most_body_ = bytes; }
  /// As many more as can be needed for the message that is under way.
  size_t room() const;
  void append(const char* bytes, size_t count) { bytes_.append(bytes, count); }
  /// The next whole message. Throws Error at one that is none of ours.
  std::optional<Message> next();

 private:
  size_t most_body_;
  std::string bytes_;
};

/// Messages over a TCP connection that never blocks: what cannot be sent at once waits here. Bodies of
/// numbers are sent as they lie in memory, because all ranks run the same program. Thread contract: one
/// thread.
class Channel {
 public:
  Channel() = default;
  /// `most_body`: what a message of the other side may carry; no more than one such message is held unread.
  explicit Channel(FileDescriptor socket, size_t most_body = MessageBuffer::kMostBody);

  int fd() const { return socket_.get(); }
  bool is_open() const { return static_cast<bool>(socket_); }
  void close() { socket_.close(); }
  void send(MessageKind kind, const std::string& body = {});
  void flush();
  /// Reads what is there. False when the peer has closed or the connection broke.
  bool receive();
  /// The next whole message that was read. Throws Error at one that is none of ours.
  std::optional<Message> next() { return in_.next(); }
  /// From here on, the other side is known to be one of us.
  void trust() { in_.set_most_body(MessageBuffer::kMostBody); }

 private:
  FileDescriptor socket_;
  MessageBuffer in_;
  std::string out_;
};

template <typename T>
std::string as_body(const T& value) {
  return {reinterpret_cast<const char*>(&value), sizeof value};
}
/// Throws Error when the body has another size.
void copy_body(const Message& message, void* to, size_t size);

/// A socket that listens on a port of the system's choice of one IPv4 address. Throws Error.
FileDescriptor listen_on(const std::string& address);
uint16_t port_of(const FileDescriptor& socket);
/// A listening socket's next caller, if one waits.
struct Caller {
  FileDescriptor socket;
  std::string address;
};
std::optional<Caller> accept_from(const FileDescriptor& listener);

/// This machine's IPv4 addresses.
struct OwnAddresses {
  std::vector<std::string> others, loopback;
};
OwnAddresses own_addresses();
/// Throws Error when nobody answers in time.
Channel connect_to(const std::string& address, uint16_t port, std::chrono::milliseconds timeout,
                   size_t most_body);
/// Waits until the channel has a message. Throws Error when it breaks or the time is over.
Message wait_for_message(Channel& channel, std::chrono::milliseconds timeout);

}  // namespace moerun
