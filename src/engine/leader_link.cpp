#include "engine/leader_link.h"

#include <algorithm>
#include <thread>

namespace moerun {

using Clock = std::chrono::steady_clock;

namespace {
constexpr std::chrono::seconds kProgressInterval{1};
constexpr size_t kMostRoutedBytes = 64 << 20;  // of one report; a row's are far less than a message can have
}  // namespace

std::vector<LeaderLink::Row> LeaderLink::poll() {
  std::vector<Row> rows;
  while (auto message = mailbox_.receive(static_cast<int>(ControlTag::handout))) {
    Handout handout = unpack_handout(message->bytes);
    if (!handout.records.empty()) asked_ = false;
    no_more_ = no_more_ || handout.no_more;
    if (no_more_)
      rows_left_ = 0;
    else if (!handout.records.empty())
      rows_left_ = handout.rows_left;
    stop_ = std::max(stop_, handout.stop);
    for (size_t i = 0; i < handout.records.size(); ++i)
      rows.push_back({std::move(handout.records[i]), handout.places[i]});
  }
  mailbox_.all_sent();
  return rows;
}

void LeaderLink::add(RowResult result) {
  routed_bytes_ += result.prompt_routed.size() + result.routed.size();
  for (const Answer& answer : result.more_answers) routed_bytes_ += answer.routed.size();
  report_.results.push_back(std::move(result));
  // A message between ranks has less than 2 GiB.
  if (routed_bytes_ < kMostRoutedBytes) return;
  report_.want = 0;
  send();
}

void LeaderLink::report(int64_t want, const GroupLoad& load) {
  const bool asks = want > 0 && !asked_ && !no_more_ && stop_ == Stop::none;
  const bool due =
      report_.prompt_tokens + report_.output_tokens > 0 && Clock::now() - sent_ >= kProgressInterval;
  if (!asks && report_.results.empty() && !due) return;
  report_.want = asks ? static_cast<int32_t>(want) : 0;
  report_.load = load;
  asked_ = asked_ || asks;
  send();
}

void LeaderLink::finish() {
  report_.want = 0;
  report_.load.running = report_.load.waiting = report_.load.blocks_used = 0;
  report_.finished = true;
  send();
  while (!mailbox_.all_sent()) std::this_thread::yield();
}

void LeaderLink::send() {
  report_.group = group_;
  mailbox_.send(0, static_cast<int>(ControlTag::report), pack(report_));
  report_ = {.load = report_.load};
  routed_bytes_ = 0;
  sent_ = Clock::now();
}

}  // namespace moerun
