#include "engine/scheduler.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "engine/plan_writer.h"

namespace moerun {

Scheduler::Scheduler(const SchedulerOptions& options)
    : options_(options),
      cache_({.block_size = options.block_size,
              .num_blocks = options.num_blocks,
              .num_host_blocks = options.num_host_blocks}),
      pacing_({.max_num_seqs = options.max_num_seqs,
               .max_num_batched_tokens = options.max_num_batched_tokens,
               .block_size = options.block_size,
               .num_blocks = options.num_blocks}) {}

void Scheduler::add(Sequence sequence) {
  const int64_t room = options_.limits.max_model_len - sequence.prompt_length();
  pacing_.add(sequence.prompt_length(), std::min<int64_t>(sequence.sampling().max_tokens, room));
  waiting_.push_back(std::move(sequence));
}

StepPlan Scheduler::schedule() {
  budget_ = options_.max_num_batched_tokens;
  prompt_budget_ = pacing_.prompt_tokens(rows_left_ + waiting_.size());
  for (Running& running : running_) running.num_scheduled = 0;
  cache_.begin_step();
  schedule_running();
  admit();
  max_blocks_used_ = std::max(max_blocks_used_, cache_.num_blocks() - cache_.num_free());
  std::vector<Scheduled> step;
  for (const bool prefill : {true, false})
    for (Running& running : running_)
      if (running.num_scheduled > 0 && running.sequence.in_prompt() == prefill) {
        running.place = step.size();
        step.push_back({&running.sequence, running.num_scheduled});
      }
  return write_plan(step, cache_, options_.limits);
}

void Scheduler::schedule_running() {
  // Those that decode get their token before a prompt takes what is left.
  auto decodes = static_cast<int32_t>(std::count_if(
      running_.begin(), running_.end(), [](const Running& r) { return !r.sequence.in_prompt(); }));
  for (auto at = running_.begin(); at != running_.end();) {
    Sequence& sequence = at->sequence;
    const bool in_prompt = sequence.in_prompt();
    int32_t tokens = 1;
    if (in_prompt)
      tokens =
          std::min({sequence.prompt_length() - sequence.num_computed, budget_ - decodes, prompt_budget_});
    else
      --decodes;
    if (budget_ <= 0 || tokens <= 0) {
      ++at;
      continue;
    }
    const size_t before = running_.size();
    if (!make_room(at, sequence.num_computed + tokens)) return;  // it was the youngest
    at->num_scheduled = tokens;
    budget_ -= tokens;
    if (in_prompt) prompt_budget_ -= tokens;
    ++at;
    // Preemption may have taken decoding sequences away. Counting them each time would cost the square of
    // what runs.
    if (running_.size() == before) continue;
    decodes = static_cast<int32_t>(
        std::count_if(at, running_.end(), [](const Running& r) { return !r.sequence.in_prompt(); }));
  }
}

ExpectedLength Scheduler::expected_length(const Sequence& sequence, int64_t mean_output) const {
  const int64_t prompt = sequence.prompt_length(), tokens = sequence.num_tokens(),
                mean = prompt + mean_output;
  const int64_t most = std::min(prompt + sequence.sampling().max_tokens, options_.limits.max_model_len);
  // What has outgrown the mean tells that answers are of unlike lengths: it may take all that it asked for.
  const int64_t end = tokens < mean ? std::min(mean, most) : most;
  // A prompt's tokens come at once; a block is half empty in the mean.
  return {.tokens = tokens + options_.block_size / 2, .steps_left = std::max<int64_t>(end - tokens, 0)};
}

bool Scheduler::will_have_room(const Sequence& next, std::optional<LengthForecast>& forecast) const {
  if (num_running() < options_.num_seqs_of_any_length) return true;
  const int64_t mean_output = std::llround(pacing_.mean_output_tokens());
  if (!forecast) {
    std::vector<ExpectedLength> running;
    for (const Running& r : running_) running.push_back(expected_length(r.sequence, mean_output));
    forecast.emplace(std::move(running));
  }
  const ExpectedLength expected = expected_length(next, mean_output);
  if (forecast->peak_with(expected) > options_.num_blocks * options_.block_size) return false;
  forecast->add(expected);
  return true;
}

void Scheduler::admit() {
  std::optional<LengthForecast> forecast;
  while (!waiting_.empty() && budget_ > 0 && num_running() < options_.max_num_seqs) {
    Sequence& next = waiting_.front();
    const bool in_prompt = next.in_prompt();
    if (in_prompt && prompt_budget_ <= 0) return;
    // Room for all that is known of it, and for some steps of those that run.
    const int64_t growth = num_running() * PromptPacing::kStepsKeptFree / options_.block_size + 1;
    if (cache_.blocks_for(next.num_tokens() + 1) + growth > cache_.num_free() && !running_.empty()) return;
    if (!will_have_room(next, forecast)) return;
    if (!cache_.swap_in(next.kv)) return;
    const int32_t tokens =
        in_prompt ? std::min({next.prompt_length() - next.num_computed, budget_, prompt_budget_}) : 1;
    if (!cache_.grow(next.kv, next.num_computed + tokens)) return;
    running_.push_back({.sequence = std::move(next), .num_scheduled = tokens});
    waiting_.pop_front();
    budget_ -= tokens;
    if (in_prompt) prompt_budget_ -= tokens;
  }
}

bool Scheduler::make_room(std::list<Running>::iterator at, int32_t tokens) {
  while (!cache_.grow(at->sequence.kv, tokens)) {
    const auto youngest = std::prev(running_.end());
    const bool itself = youngest == at;
    preempt(youngest);
    if (itself) return false;
  }
  return true;
}

void Scheduler::preempt(std::list<Running>::iterator at) {
  Sequence& sequence = at->sequence;
  if (cache_.swap_out(sequence.kv, sequence.num_computed)) {
    ++num_swaps_;
  } else {
    cache_.release(sequence.kv);
    sequence.num_computed = 0;
  }
  waiting_.push_front(std::move(sequence));
  running_.erase(at);
  ++num_preemptions_;
}

std::vector<RowResult> Scheduler::postprocess(const StepPlan& plan, const std::vector<TokenResult>& results) {
  std::vector<size_t> first_row(static_cast<size_t>(plan.num_seqs()) + 1);  // of each sequence of the plan
  for (const LogitRow& row : plan.logit_rows) ++first_row[static_cast<size_t>(row.sequence) + 1];
  std::partial_sum(first_row.begin(), first_row.end(), first_row.begin());
  std::vector<RowResult> finished;
  for (auto at = running_.begin(); at != running_.end();) {
    Sequence& sequence = at->sequence;
    bool done = false;
    if (at->num_scheduled > 0) {
      sequence.num_computed += at->num_scheduled;
      for (size_t row = first_row[at->place]; row < first_row[at->place + 1] && !done; ++row)
        done = take(sequence, plan.logit_rows[row], results[row]);
      // A prompt that is only scored ends where its answer would begin.
      if (sequence.num_computed == sequence.prompt_length() && sequence.num_output_tokens() == 0 &&
          !sequence.wants_token(options_.limits))
        done = true;
    }
    if (!done) {
      ++at;
      continue;
    }
    cache_.release(sequence.kv);
    if (sequence.finish_reason() != FinishReason::error) pacing_.finish(sequence.num_output_tokens());
    finished.push_back(sequence.finish(sequence.finish_reason()));
    at = running_.erase(at);
  }
  return finished;
}

bool Scheduler::take(Sequence& sequence, const LogitRow& row, const TokenResult& result) const {
  if (result.fault != TokenFault::none) {
    sequence.fail(result.fault, row.position);
    return true;
  }
  if (row.target < 0) return sequence.append(result, options_.limits);
  sequence.add_prompt_logprob(result.logprob);
  return false;
}

void Scheduler::drop_waiting() {
  // Preempted sequences have begun, and their blocks will come free.
  std::erase_if(waiting_, [this](Sequence& s) {
    if (s.num_output_tokens() > 0 || s.num_scored() > 1) return false;
    cache_.release(s.kv);
    return true;
  });
}

void Scheduler::drop_all() {
  for (Sequence& sequence : waiting_) cache_.release(sequence.kv);
  waiting_.clear();
  for (Running& running : running_) cache_.release(running.sequence.kv);
  running_.clear();
}

}  // namespace moerun
