#include "coordinator/coordinator.h"

#include <algorithm>
#include <ctime>

#include "coordinator/row_share.h"
#include "moerun/error.h"

namespace moerun {

using Clock = std::chrono::steady_clock;

namespace {

/// What the calling thread has had of a core, in seconds.
double processor_seconds() {
  timespec time{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

}  // namespace

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
    : parts_(std::move(parts)), mailbox_(parts_.control), groups_(parts_.leaders.size()) {
  outcome_.progress.num_rows = parts_.source->num_rows();
  outcome_.progress.groups.resize(groups_.size());
  outcome_.progress.num_answered = parts_.store->num_answered();
  outcome_.progress.series = parts_.earlier;
  if (parts_.order_in)
    order_.emplace(RowOrder::Options{.directory = *parts_.order_in, .num_groups = groups_.size()});
  thread_ = std::thread([this] {
    try {
      serve();
      outcome_.processor_s = processor_seconds();
      outcome_.traffic = mailbox_.traffic();
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
    bool busy = take_reports();
    relay_stop();
    if (read_ahead())
      busy = true;
    else
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
  if (!began_) begin();
  group.finished = report.finished;
  JobProgress& progress = outcome_.progress;
  JobProgress::Group& told = progress.groups[static_cast<size_t>(report.group)];
  const double now = since_began();
  progress.series.add(JobSeries::prompt_tokens, told.reported_s, now,
                      static_cast<double>(report.prompt_tokens));
  progress.series.add(JobSeries::output_tokens, told.reported_s, now,
                      static_cast<double>(report.output_tokens));
  static_cast<GroupLoad&>(told) = report.load;
  told.reported_s = now;
  progress.prompt_tokens += report.prompt_tokens;
  progress.output_tokens += report.output_tokens;
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
    ++progress.num_answered;
    progress.series.add(JobSeries::rows, since_began(), since_began(), 1);
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

bool Coordinator::read_ahead() {
  constexpr int kRowsAtOnce = 256;
  if (!order_ || order_->finished() || told_stop_ != Stop::none) return false;
  PromptRecord record;
  for (int i = 0; i < kRowsAtOnce; ++i) {
    if (!parts_.source->next(record)) {
      order_->finish();
      return true;
    }
    if (parts_.store->answered(record.row)) continue;
    if (parts_.ids) parts_.ids->truncate_text(record, parts_.room);
    order_->add(std::move(record));
  }
  return true;
}

void Coordinator::hand_out() {
  if (told_stop_ != Stop::none) return;
  JobProgress& progress = outcome_.progress;
  for (size_t i = 0; i < groups_.size(); ++i) {
    Group& group = groups_[i];
    if (group.told_no_more || (group.want <= 0 && !exhausted(i))) continue;
    const uint64_t share = row_share(rows_left(), groups_.size());
    Handout handout;
    if (group.want > 0) add_rows(handout, i, share, static_cast<uint64_t>(group.want));
    handout.rows_left = rows_left() / groups_.size();
    handout.no_more = exhausted(i);
    group.told_no_more = handout.no_more;
    group.want = 0;
    send_to(i, handout);
  }
  const auto told = [](const Group& group) { return group.told_no_more; };
  if (std::all_of(groups_.begin(), groups_.end(), told)) progress.end_handing_out(since_began());
}

bool Coordinator::next_row(size_t group, bool begins, PromptRecord& record, RowPlace& place) {
  if (order_) return order_->next(group, begins, record, place);
  while (!exhausted_) {
    if (!parts_.source->next(record)) {
      exhausted_ = true;
      return false;
    }
    next_row_ = record.row + 1;
    exhausted_ = next_row_ >= outcome_.progress.num_rows;
    if (!parts_.store->answered(record.row)) return true;
  }
  return false;
}

void Coordinator::add_rows(Handout& handout, size_t group, uint64_t most, uint64_t answers) {
  PromptRecord record;
  RowPlace place;
  for (uint64_t asked = 0; asked < answers && (order_ || handout.records.size() < most);) {
    if (!next_row(group, handout.records.size() < most, record, place)) return;
    const auto n = static_cast<uint64_t>(record.sampling.n);
    asked += n;
    ++outcome_.progress.handed_out;
    outcome_.progress.most_output_tokens += n * static_cast<uint64_t>(record.sampling.max_tokens);
    handout.records.push_back(std::move(record));
    handout.places.push_back(place);
  }
}

void Coordinator::send_to(size_t group, const Handout& handout) {
  mailbox_.send(parts_.leaders[group], static_cast<int>(ControlTag::handout), pack(handout));
}

void Coordinator::begin() {
  began_ = Clock::now();
  outcome_.progress.series.begin_run(std::time(nullptr));
}

void Coordinator::update_progress() {
  if (!began_) return;
  JobProgress& progress = outcome_.progress;
  const double now = since_began(), passed = now - progress.seconds;
  progress.sequence_seconds += static_cast<double>(progress.running) * passed;
  JobSeries& series = progress.series;
  series.add(JobSeries::running, progress.seconds, now, static_cast<double>(progress.running) * passed);
  series.add(JobSeries::waiting, progress.seconds, now, static_cast<double>(progress.waiting) * passed);
  series.add(JobSeries::blocks_used, progress.seconds, now,
             static_cast<double>(progress.blocks_used) * passed);
  series.runs.back().end_s = series.sums.end_s();
  series.runs.back().ended = std::time(nullptr);
  series.runs.back().answered = progress.num_answered;
  progress.seconds = now;
  progress.sum_groups();
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
