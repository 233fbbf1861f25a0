#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "fault/signals.h"
#include "moerun/record.h"
#include "moerun/wire.h"

namespace moerun {

/// Tags of the control communicator.
enum class ControlTag : int { report = 1, handout = 2 };

/// What a group is at, as its leader says.
struct GroupLoad {
  int64_t running = 0, waiting = 0;         ///< sequences
  int64_t steps = 0;                        ///< of this run
  int64_t blocks_used = 0, num_blocks = 0;  ///< of keys and values
};

/// From a data-parallel group's leader to the coordinator.
struct LeaderReport {
  int32_t group = 0;           ///< the leader's place among the leaders
  int32_t want = 0;            ///< answers that it could take rows for now
  bool finished = false;       ///< its last report: it holds no rows any more
  uint64_t prompt_tokens = 0;  ///< computed, or taken over from others, since its last report
  uint64_t output_tokens = 0;  ///< drawn, or of rows that repeat others, since its last report
  GroupLoad load;
  std::vector<RowResult> results;
};

/// Where a row stands in the order in which rows that begin alike meet (row_order.h).
struct RowPlace {
  bool ordered = false;  ///< there is such an order
  bool follows = false;  ///< its group got the row before it just before
  double alike = 0;      ///< the part of the prompt that the row before it has too, about
};

/// From the coordinator to a leader.
struct Handout {
  std::vector<PromptRecord> records;
  std::vector<RowPlace> places;  ///< of the records
  uint64_t rows_left = 0;        ///< that a group will get later, about
  bool no_more = false;          ///< nothing will follow
  Stop stop = Stop::none;
};

std::string pack(const LeaderReport& report);
/// Of forms that several of the records have, one is packed.
std::string pack(Handout handout);
void put_record(WireWriter& out, const PromptRecord& record);
/// Throw Error when the bytes are cut short.
PromptRecord get_record(WireReader& in);
LeaderReport unpack_report(const std::string& bytes);
Handout unpack_handout(const std::string& bytes);

}  // namespace moerun
