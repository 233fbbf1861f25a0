#include "coordinator/mailbox.h"

#include "comm/mpi_env.h"

namespace moerun {

Mailbox::Mailbox(MPI_Comm comm) : comm_(comm), outgoing_(std::make_unique<std::list<Outgoing>>()) {}

Mailbox::~Mailbox() {
  // MPI may still read these buffers.
  if (!outgoing_->empty()) static_cast<void>(outgoing_.release());
}

void Mailbox::send(int rank, int tag, std::string bytes) {
  ++traffic_.messages_sent, traffic_.bytes_sent += bytes.size();
  Outgoing& message = outgoing_->emplace_back(Outgoing{std::move(bytes)});
  MPI_CHECK(MPI_Isend(message.bytes.data(), byte_count(message.bytes.size()), MPI_BYTE, rank, tag, comm_,
                      &message.request));
  all_sent();
}

std::optional<Mailbox::Received> Mailbox::receive(int tag) {
  int there = 0;
  MPI_Message message = MPI_MESSAGE_NULL;
  MPI_Status status;
  MPI_CHECK(MPI_Improbe(MPI_ANY_SOURCE, tag, comm_, &there, &message, &status));
  if (!there) return std::nullopt;
  int count = 0;
  MPI_CHECK(MPI_Get_count(&status, MPI_BYTE, &count));
  ++traffic_.messages_received, traffic_.bytes_received += static_cast<uint64_t>(count);
  Received received{.rank = status.MPI_SOURCE, .bytes = std::string(static_cast<size_t>(count), '\0')};
  MPI_CHECK(MPI_Mrecv(received.bytes.data(), count, MPI_BYTE, &message, MPI_STATUS_IGNORE));
  return received;
}

bool Mailbox::all_sent() {
  for (auto at = outgoing_->begin(); at != outgoing_->end();) {
    int done = 0;
    MPI_CHECK(MPI_Test(&at->request, &done, MPI_STATUS_IGNORE));
    at = done ? outgoing_->erase(at) : std::next(at);
  }
  return outgoing_->empty();
}

}  // namespace moerun
