#pragma once
#include <mpi.h>

#include <cstdint>
#include <list>
#include <memory>
#include <optional>
#include <string>

namespace moerun {

/// What went over a mailbox.
struct MailboxTraffic {
  uint64_t messages_sent = 0, bytes_sent = 0, messages_received = 0, bytes_received = 0;
};

/// Messages over one communicator that never block: what is sent is kept until MPI has taken it. Thread
/// contract: one thread a mailbox; several mailboxes of one process may use the same communicator.
class Mailbox {
 public:
  explicit Mailbox(MPI_Comm comm);
  /// What MPI has not taken stays behind: only a job that ends with an error leaves such.
  ~Mailbox();
  Mailbox(const Mailbox&) = delete;
  Mailbox& operator=(const Mailbox&) = delete;

  void send(int rank, int tag, std::string bytes);
  struct Received {
    int rank = 0;
    std::string bytes;
  };
  /// The next message with this tag, if one has come.
  std::optional<Received> receive(int tag);
  /// Whether MPI has taken everything that was sent.
  bool all_sent();
  const MailboxTraffic& traffic() const { return traffic_; }

 private:
  struct Outgoing {
    std::string bytes;
    MPI_Request request = MPI_REQUEST_NULL;
  };
  MPI_Comm comm_;
  MailboxTraffic traffic_;
  std::unique_ptr<std::list<Outgoing>> outgoing_;
};

}  // namespace moerun
