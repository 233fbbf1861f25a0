#include "coordinator/coordinator.h"

#include <algorithm>

#include "moerun/error.h"

namespace moerun {

using Clock = std::chrono::steady_clock;

std::optional<double> JobProgress::seconds_left() const {
  const uint64_t rows_left = num_rows - num_answered;
  if (rows_left == 0) return {};
  const auto answered = static_cast<double>(answered_now), drawn = static_cast<double>(output_tokens);
  if (output_tokens == 0)  // rows that are scored alone
    return answered_now > 0 ? std::optional(seconds / answered * static_cast<double>(rows_left))
                            : std::nullopt;
  const double most =
      static_cast<double>(most_output_tokens) / static_cast<double>(std::max<uint64_t>(handed_out, 1));
  const double mean = answered_now > 0 ? std::min(drawn / answered, most) : most;
  const double left = mean * (answered + static_cast<double>(rows_left)) - drawn;
  return std::max(left, 0.0) / drawn * seconds;
}

Coordinator::Coordinator(Parts parts)
    : parts_(std::move(parts)),
      mailbox_(parts_.control),
      groups_(parts_.leaders.size()),
      began_(Clock::now()) {
  outcome_.progress.num_rows = parts_.source->num_rows();
  outcome_.progress.num_answered = parts_.store->num_answered();
  thread_ = std::thread([this] {
    try {
      serve();
      finish();
    } catch (...) {
      error_ = std::current_exception();
      parts_.on_error(error_);
    }
  });
}

Coordinator::~Coordinator() {
  if (thread_.joinable()) thread_.join();
}

JobOutcome Coordinator::join() {
  thread_.join();
  if (error_) std::rethrow_exception(error_);
  return outcome_;
}

void Coordinator::serve() {
  // MPI has no wait for "any message" that sleeps: look again after a pause that grows while nothing comes.
  constexpr std::chrono::microseconds kShortest(100), kLongest(5000);
  std::chrono::microseconds pause = kShortest;
  const auto finished = [](const Group& group) { return group.finished; };
  while (!std::all_of(groups_.begin(), groups_.end(), finished)) {
    const bool busy = take_reports();
    relay_stop();
    hand_out();
    {
      const std::lock_guard lock(store_mutex_);
      if (!store_fault_) {
        try {
          parts_.store->seal_if_due();
        } catch (const Error& fault) {
          store_fault_ = std::current_exception();
          parts_.signals->request(Stop::now, fault.what());
        }
      }
    }
    update_progress();
    const bool sent = mailbox_.all_sent();
    pause = busy ? kShortest : std::min(pause * 2, kLongest);
    if (!busy) std::this_thread::sleep_for(sent ? pause : kShortest);
  }
}

bool Coordinator::take_reports() {
  bool any = false;
  while (auto message = mailbox_.receive(static_cast<int>(ControlTag::report))) {
    take(unpack_report(message->bytes));
    any = true;
  }
  return any;
}

void Coordinator::take(LeaderReport report) {
  Group& group = groups_.at(static_cast<size_t>(report.group));
  if (report.want > 0) group.want = report.want;
  group.finished = report.finished;
  group.running = report.running;
  group.waiting = report.waiting;
  outcome_.progress.prompt_tokens += report.prompt_tokens;
  outcome_.progress.output_tokens += report.output_tokens;
  for (RowResult& result : report.results) keep(std::move(result));
}

void Coordinator::keep(RowResult result) {
  const std::lock_guard lock(store_mutex_);
  if (store_fault_) return;
  try {
    const bool failed = result.finish_reason == FinishReason::error;
    parts_.store->append(std::move(result));
    outcome_.progress.row_errors += failed;
    JobProgress& progress = outcome_.progress;
    if (++progress.answered_now == 1) {
      progress.first_answer_s = since_began();
      progress.tokens_first_answer = progress.tokens();
    }
    ++outcome_.progress.num_answered;
  } catch (const Error& fault) {
    store_fault_ = std::current_exception();
    parts_.signals->request(Stop::now, fault.what());
  }
}

void Coordinator::relay_stop() {
  const StopRequest request = parts_.signals->poll();
  if (request.kind <= told_stop_) return;
  told_stop_ = request.kind;
  outcome_.stop = request;
  outcome_.progress.end_handing_out(since_began());
  for (size_t i = 0; i < groups_.size(); ++i)
    if (!groups_[i].finished) send_to(i, {.stop = request.kind});
}

void Coordinator::hand_out() {
  if (told_stop_ != Stop::none) return;
  JobProgress& progress = outcome_.progress;
  for (size_t i = 0; i < groups_.size(); ++i) {
    Group& group = groups_[i];
    if (group.want <= 0 || group.told_no_more) continue;
    // Everyone gets at most half of an even share of what is left, so that the groups end together.
    const uint64_t left = progress.num_rows - next_row_;
    const uint64_t share = std::max<uint64_t>(left / (2 * groups_.size()), 1);
    Handout handout{.records = next_rows(share, static_cast<uint64_t>(group.want))};
    handout.rows_left = (progress.num_rows - next_row_) / groups_.size();
    handout.no_more = exhausted_;
    group.told_no_more = exhausted_;
    group.want = 0;
    send_to(i, handout);
  }
  if (!exhausted_) return;
  progress.end_handing_out(since_began());
  for (size_t i = 0; i < groups_.size(); ++i)
    if (!groups_[i].told_no_more) {
      groups_[i].told_no_more = true;
      send_to(i, {.no_more = true});
    }
}

std::vector<PromptRecord> Coordinator::next_rows(uint64_t most, uint64_t answers) {
  std::vector<PromptRecord> records;
  uint64_t asked = 0;  // answers
  while (records.size() < most && asked < answers && !exhausted_) {
    PromptRecord record;
    if (!parts_.source->next(record)) {
      exhausted_ = true;
      break;
    }
    next_row_ = record.row + 1;
    if (parts_.store->answered(record.row)) continue;
    ++outcome_.progress.handed_out;
    const auto n = static_cast<uint64_t>(record.sampling.n);
    asked += n;
    outcome_.progress.most_output_tokens += n * static_cast<uint64_t>(record.sampling.max_tokens);
    records.push_back(std::move(record));
  }
  exhausted_ = exhausted_ || next_row_ >= outcome_.progress.num_rows;
  return records;
}

void Coordinator::send_to(size_t group, const Handout& handout) {
  mailbox_.send(parts_.leaders[group], static_cast<int>(ControlTag::handout), pack(handout));
}

void Coordinator::update_progress() {
  JobProgress& progress = outcome_.progress;
  const double now = since_began();
  progress.sequence_seconds += static_cast<double>(progress.running) * (now - progress.seconds);
  progress.seconds = now;
  progress.running = progress.waiting = 0;
  for (const Group& group : groups_) {
    progress.running += group.running;
    progress.waiting += group.waiting;
  }
  if (parts_.show) parts_.show(progress);
}

void Coordinator::finish() {
  while (!mailbox_.all_sent()) std::this_thread::sleep_for(std::chrono::microseconds(100));
  update_progress();
  if (store_fault_) std::rethrow_exception(store_fault_);
  const std::lock_guard lock(store_mutex_);
  parts_.store->seal();
  if (outcome_.progress.num_answered < outcome_.progress.num_rows) return;
  // Whoever asks for a stop now gets a finished output sooner than an unfinished one.
  const auto began = Clock::now();
  if (parts_.merging) parts_.merging();
  parts_.store->finish();
  outcome_.row_errors = parts_.store->num_row_errors();
  outcome_.complete = true;
  outcome_.merge_s = std::chrono::duration<double>(Clock::now() - began).count();
}

void Coordinator::seal_for_fault() {
  const std::unique_lock lock(store_mutex_, std::chrono::seconds(1));
  if (lock && !store_fault_) parts_.store->seal();
}

}  // namespace moerun
