#pragma once
#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "fault/file_descriptor.h"

namespace moerun {

/// What ranks' watchdogs tell each other.
enum class MessageKind : uint32_t {
  hello,    ///< first one on a connection: who calls
  welcome,  ///< the answer: this is the rank that was meant
  beat,     ///< still here, and how far
  stop,     ///< a stop request arrived here
  failure,  ///< an error was thrown here
  end,      ///< the job ends, with an exit code
  goodbye,  ///< nothing more will come, and nothing is wrong
};

struct Message {
  MessageKind kind = MessageKind::beat;
  std::string body;
};

/// Messages over a TCP connection that never blocks: what cannot be sent at once waits here. Bodies of
/// numbers are sent as they lie in memory, because all ranks run the same program. Thread contract: one
/// thread.
class Channel {
 public:
  Channel() = default;
  explicit Channel(FileDescriptor socket);

  int fd() const { return socket_.get(); }
  bool is_open() const { return static_cast<bool>(socket_); }
  void close() { socket_.close(); }
  void send(MessageKind kind, const std::string& body = {});
  void flush();
  /// Reads what is there. False when the peer has closed or the connection broke.
  bool receive();
  /// The next whole message that was read.
  std::optional<Message> next();

 private:
  FileDescriptor socket_;
  std::string in_, out_;
};

template <typename T>
std::string as_body(const T& value) {
  return {reinterpret_cast<const char*>(&value), sizeof value};
}
/// Throws Error when the body has another size.
void copy_body(const Message& message, void* to, size_t size);

/// A socket that listens on a port of the system's choice on every IPv4 address. Throws Error.
FileDescriptor listen_anywhere();
uint16_t port_of(const FileDescriptor& socket);
/// A connection to a listening socket's next caller, if one waits.
std::optional<Channel> accept_from(const FileDescriptor& listener);
/// This machine's IPv4 addresses, those that other machines may reach first, loopback last.
std::vector<std::string> own_addresses();
/// Throws Error when nobody answers in time.
Channel connect_to(const std::string& address, uint16_t port, std::chrono::milliseconds timeout);
/// Waits until the channel has a message. Throws Error when it breaks or the time is over.
Message wait_for_message(Channel& channel, std::chrono::milliseconds timeout);

}  // namespace moerun
