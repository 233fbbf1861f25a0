#include "simulation.h"

#include <algorithm>
#include <filesystem>
#include <optional>

#include "coordinator/row_order.h"
#include "coordinator/row_share.h"
#include "engine/rows_ahead.h"
#include "engine/scheduler.h"
#include "moerun/random.h"
#include "step_cost.h"

namespace moerun::bench {

namespace {

constexpr int32_t kEnd = 151645;  // of an answer
constexpr int64_t kMaxModelLen = 40960;
/// What a job on a GPU has when it says nothing (plan/sequence_limit.h, plan/run_plan.cpp).
constexpr int32_t kMostSeqs = 1024, kSeqsOfAnyLength = 256, kStepTokens = 8192;

SchedulerOptions options_of(const Workload& workload, const Room& room) {
  return {.max_num_seqs = kMostSeqs,
          .num_seqs_of_any_length = kSeqsOfAnyLength,
          .max_num_batched_tokens = kStepTokens,
          .block_size = room.block_size,
          .num_blocks = room.num_blocks,
          .num_host_blocks = room.num_host_blocks,
          .limits = {.max_model_len = kMaxModelLen, .eos_token_ids = {kEnd}},
          .share_prefixes = workload.share_prefixes};
}

/// The coordinator's part: rows in their order, or in the one in which those that begin alike meet.
class HandOut {
 public:
  explicit HandOut(const Workload& workload)
      : rows_(workload.rows), num_groups_(static_cast<size_t>(workload.num_groups)) {
    if (!workload.share_prefixes) return;
    order_.emplace(
        RowOrder::Options{.directory = std::filesystem::temp_directory_path(), .num_groups = num_groups_});
    for (const PromptRecord& record : rows_) order_->add(record);
    order_->finish();
  }

  bool exhausted(size_t group) const { return order_ ? order_->exhausted(group) : next_ >= rows_.size(); }
  /// As Coordinator::hand_out.
  Handout to(size_t group, int64_t want) {
    Handout out;
    const uint64_t share = row_share(rows_left(), num_groups_);
    PromptRecord record;
    RowPlace place;
    for (int64_t asked = 0; asked < want && (order_ || out.records.size() < share);) {
      if (!next(group, out.records.size() < share, record, place)) break;
      asked += record.sampling.n;
      out.records.push_back(std::move(record));
      out.places.push_back(place);
    }
    out.rows_left = rows_left() / num_groups_;
    return out;
  }

 private:
  uint64_t rows_left() const { return order_ ? order_->rows_left() : rows_.size() - next_; }
  bool next(size_t group, bool begins, PromptRecord& record, RowPlace& place) {
    if (order_) return order_->next(group, begins, record, place);
    if (next_ >= rows_.size()) return false;
    record = rows_[next_++];
    return true;
  }

  const std::vector<PromptRecord>& rows_;
  size_t num_groups_, next_ = 0;
  std::optional<RowOrder> order_;
};

/// A data-parallel group: what Engine::run does, without a model.
class Group {
 public:
  Group(const Workload& workload, const Room& room, HandOut& hand_out, size_t number)
      : workload_(workload),
        room_(room),
        hand_out_(hand_out),
        number_(number),
        scheduler_(options_of(workload, room)) {}

  double clock() const { return clock_; }
  bool finished() const { return finished_; }
  double first_answer() const { return first_answer_; }
  double last_begun() const { return last_begun_; }
  void step();
  void add_to(Outcome& outcome) const;
  double used_seconds() const { return used_seconds_; }

 private:
  /// As Engine::talk: what was asked for a step ago is there.
  void talk() {
    take_rows();
    const int64_t want = rows_to_ask_for(scheduler_, distinct_, scheduler_.num_waiting());
    if (want > 0 && !hand_out_.exhausted(number_)) coming_ = hand_out_.to(number_, want);
  }
  void take_rows() {
    if (!coming_) return;
    for (size_t i = 0; i < coming_->records.size(); ++i) {
      PromptRecord record = std::move(coming_->records[i]);
      std::vector<int32_t> prompt = std::move(*record.prompt_token_ids);
      record.prompt_token_ids.reset();
      if (workload_.share_prefixes) distinct_.add(prompt, coming_->places[i]);
      scheduler_.add({std::move(record), std::move(prompt), nullptr});
    }
    rows_left_ = coming_->rows_left;
    coming_.reset();
  }
  std::vector<TokenResult> draw(const StepPlan& plan);

  const Workload& workload_;
  const Room& room_;
  HandOut& hand_out_;
  size_t number_;
  Scheduler scheduler_;
  DistinctTokens distinct_;
  std::optional<Handout> coming_;
  uint64_t rows_left_ = 0;
  bool finished_ = false;
  double clock_ = 0, first_answer_ = 0, last_begun_ = 0, used_seconds_ = 0;
  int64_t steps_ = 0, tokens_ = 0, most_running_ = 0;
};

std::vector<TokenResult> Group::draw(const StepPlan& plan) {
  std::vector<TokenResult> results(plan.logit_rows.size());
  for (size_t i = 0; i < results.size(); ++i) {
    const LogitRow& drawn = plan.logit_rows[i];
    const uint64_t stream = drawn.stream - stream_of_row(0);
    const auto row = static_cast<size_t>(stream & ((uint64_t{1} << 44) - 1));
    const int32_t prompt = static_cast<int32_t>(workload_.rows[row].prompt_token_ids->size());
    const int32_t answer = workload_.answers[row][static_cast<size_t>(stream >> 44)];
    const bool last = drawn.position + 1 >= prompt + answer;
    results[i].token = last && workload_.ends_by_token ? kEnd : 1;
    if (drawn.position == prompt) last_begun_ = clock_;
  }
  return results;
}

void Group::step() {
  if (scheduler_.idle()) talk();
  if (scheduler_.num_waiting() == 0) take_rows();
  scheduler_.set_rows_left(hand_out_.exhausted(number_) ? 0 : rows_left_);
  const StepPlan plan = scheduler_.schedule();
  if (plan.num_tokens() == 0) {
    finished_ = scheduler_.idle() && !coming_ && hand_out_.exhausted(number_);
    return;
  }
  talk();
  const double took = step_cost::step_s(work_of(plan), room_.block_bytes);
  clock_ += took;
  used_seconds_ += took * static_cast<double>(scheduler_.cache().num_used()) /
                   static_cast<double>(scheduler_.cache().num_blocks());
  ++steps_, tokens_ += plan.num_tokens();
  most_running_ = std::max(most_running_, scheduler_.num_running());
  const size_t answers = scheduler_.postprocess(plan, draw(plan)).size();
  if (answers > 0 && first_answer_ == 0) first_answer_ = clock_;
}

void Group::add_to(Outcome& outcome) const {
  outcome.seconds = std::max(outcome.seconds, clock_);
  outcome.steps = std::max(outcome.steps, steps_);
  outcome.most_running = std::max(outcome.most_running, most_running_);
  outcome.tokens += tokens_;
  outcome.preemptions += scheduler_.num_preemptions();
  outcome.swaps += scheduler_.num_swaps();
  outcome.shared += scheduler_.num_shared_tokens();
}

size_t common(const std::vector<int32_t>& a, const std::vector<int32_t>& b) {
  const size_t most = std::min(a.size(), b.size());
  return static_cast<size_t>(
      std::mismatch(a.begin(), a.begin() + static_cast<ptrdiff_t>(most), b.begin()).first - a.begin());
}

/// Of each row's prompt the tokens that an earlier one has too; 0 where nothing is shared.
std::vector<size_t> shared_tokens(const Workload& workload) {
  std::vector<size_t> shared(workload.rows.size());
  if (!workload.share_prefixes) return shared;
  std::vector<size_t> order(shared.size());
  for (size_t i = 0; i < order.size(); ++i) order[i] = i;
  const auto prompt = [&](size_t row) -> const std::vector<int32_t>& {
    return *workload.rows[row].prompt_token_ids;
  };
  std::sort(order.begin(), order.end(), [&](size_t a, size_t b) { return prompt(a) < prompt(b); });
  for (size_t i = 1; i < order.size(); ++i) shared[order[i]] = common(prompt(order[i - 1]), prompt(order[i]));
  return shared;
}

/// What any schedule of the workload has to do, and the fewest steps in which it can.
WholeWork whole_work(const Workload& workload, const Room& room) {
  WholeWork out;
  double held = 0, answers = 0, longest = 0;  // blocks · steps; tokens; tokens
  const std::vector<size_t> shared = shared_tokens(workload);
  for (size_t row = 0; row < workload.rows.size(); ++row) {
    const auto prompt = static_cast<double>(workload.rows[row].prompt_token_ids->size());
    const auto alike = static_cast<double>(shared[row]);
    out.sum.tokens += prompt - alike;
    out.sum.query_keys += (prompt * (prompt + 1) - alike * (alike + 1)) / 2;
    bool own = true;  // the row's further answers hold their own tokens alone
    for (const int32_t answer : workload.answers[row]) {
      out.sum.tokens += answer - 1;
      out.sum.context_tokens += (answer - 1) * prompt + 0.5 * answer * (answer - 1);
      const auto begin = static_cast<int64_t>(own ? prompt - alike : 0);
      for (int64_t step = 0; step < answer; ++step)
        held += static_cast<double>((begin + step + room.block_size - 1) / room.block_size);
      own = own && !workload.share_prefixes;
      answers += answer;
      longest = std::max<double>(longest, answer);
    }
    out.sum.drawn += static_cast<double>(workload.answers[row].size());
  }
  out.sum.drawn = answers;
  const double groups = workload.num_groups;
  for (double* of : {&out.sum.tokens, &out.sum.context_tokens, &out.sum.query_keys, &out.sum.drawn})
    *of /= groups;
  out.steps = std::max({out.sum.tokens / kStepTokens, held / static_cast<double>(room.num_blocks) / groups,
                        answers / kMostSeqs / groups, longest});
  return out;
}

}  // namespace

Outcome simulate(const Workload& workload, const Room& room) {
  HandOut hand_out(workload);
  std::vector<std::unique_ptr<Group>> groups;
  for (size_t i = 0; i < static_cast<size_t>(workload.num_groups); ++i)
    groups.push_back(std::make_unique<Group>(workload, room, hand_out, i));
  for (;;) {  // the group whose clock is the furthest behind
    Group* next = nullptr;
    for (const auto& group : groups)
      if (!group->finished() && (!next || group->clock() < next->clock())) next = group.get();
    if (!next) break;
    next->step();
  }
  Outcome outcome;
  double begun = 0, first = 0, used = 0;
  for (const auto& group : groups) {
    group->add_to(outcome);
    begun = std::max(begun, group->last_begun());
    first = first == 0 ? group->first_answer() : std::min(first, group->first_answer());
    used += group->used_seconds();
  }
  outcome.ramp = first / outcome.seconds;
  outcome.tail = (outcome.seconds - begun) / outcome.seconds;
  outcome.used = used / outcome.seconds / workload.num_groups;
  const WholeWork work = whole_work(workload, room);
  outcome.least_seconds = least_s(work, room.block_bytes);
  double needed = 0;
  for (size_t row = 0; row < workload.rows.size(); ++row)
    for (const int32_t answer : workload.answers[row])
      needed += static_cast<double>(workload.rows[row].prompt_token_ids->size()) + answer - 1;
  outcome.computed_again =
      std::max<int64_t>(outcome.tokens - static_cast<int64_t>(needed) + outcome.shared, 0);
  return outcome;
}

}  // namespace moerun::bench
