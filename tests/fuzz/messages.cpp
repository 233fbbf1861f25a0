#include "coordinator/messages.h"

#include "engine/plan_wire.h"
#include "fault/channel.h"
#include "report/report.h"
#include "tests/fuzz/harness.h"

namespace moerun::fuzz {

/// Messages between ranks; the first byte says which.
void read_messages_of_ranks(std::string_view bytes) {
  const unsigned which = take_byte(bytes) % 5;
  const std::string message(bytes);
  if (which == 0) unpack_plan(message);
  if (which == 1) unpack_report(message);
  if (which == 2) unpack_handout(message);
  if (which == 3) unpack_rank_report(message);
  if (which == 4) {
    WireReader in(message);
    StepResult all{.results = std::vector<TokenResult>(8)};
    add_result(in, all);
  }
}

/// What comes over a connection of the watchdog's, in pieces of the size that the first byte says.
void read_watchdog_messages(std::string_view bytes) {
  MessageBuffer buffer(256);
  const size_t piece = 1 + take_byte(bytes);
  while (!bytes.empty()) {
    const size_t count = std::min({piece, bytes.size(), buffer.room()});
    check(count > 0, "there is room for the message that is under way");
    buffer.append(bytes.data(), count);
    bytes.remove_prefix(count);
    while (const auto message = buffer.next()) check(message->body.size() <= 256, "a message is of its size");
  }
}

}  // namespace moerun::fuzz
