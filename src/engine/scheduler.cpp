#include "engine/scheduler.h"

#include <algorithm>
#include <cmath>
#include <map>

#include "moerun/random.h"

namespace moerun {

Scheduler::Scheduler(const SchedulerOptions& options)
    : options_(options),
      blocks_(options.num_blocks),
      host_blocks_(options.num_host_blocks),
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
  swap_out_.clear(), swap_in_.clear();
  schedule_running();
  admit();
  max_blocks_used_ = std::max(max_blocks_used_, blocks_.num_blocks() - blocks_.num_free());
  StepPlan plan;
  write_plan(plan);
  return plan;
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
    if (blocks_for(next.num_tokens() + 1) + growth > blocks_.num_free() && !running_.empty()) return;
    if (!will_have_room(next, forecast)) return;
    if (!bring_back(next)) return;
    const int32_t tokens =
        in_prompt ? std::min({next.prompt_length() - next.num_computed, budget_, prompt_budget_}) : 1;
    if (!add_blocks(next, next.num_computed + tokens)) return;
    running_.push_back({.sequence = std::move(next), .num_scheduled = tokens});
    waiting_.pop_front();
    budget_ -= tokens;
    if (in_prompt) prompt_budget_ -= tokens;
  }
}

bool Scheduler::make_room(std::list<Running>::iterator at, int32_t tokens) {
  while (!add_blocks(at->sequence, tokens)) {
    const auto youngest = std::prev(running_.end());
    const bool itself = youngest == at;
    preempt(youngest);
    if (itself) return false;
  }
  return true;
}

void Scheduler::preempt(std::list<Running>::iterator at) {
  Sequence& sequence = at->sequence;
  if (blocks_for(sequence.num_computed) <= host_blocks_.num_free()) {
    for (int64_t i = 0; i < blocks_for(sequence.num_computed); ++i) {
      sequence.host_blocks.push_back(host_blocks_.take());
      swap_out_.insert(swap_out_.end(),
                       {sequence.blocks[static_cast<size_t>(i)], sequence.host_blocks.back()});
    }
    ++num_swaps_;
  } else {
    sequence.num_computed = 0;
  }
  blocks_.give_back(sequence.blocks);
  waiting_.push_front(std::move(sequence));
  running_.erase(at);
  ++num_preemptions_;
}

bool Scheduler::bring_back(Sequence& sequence) {
  if (sequence.host_blocks.empty()) return true;
  if (!add_blocks(sequence, sequence.num_computed)) return false;
  for (size_t i = 0; i < sequence.host_blocks.size(); ++i)
    swap_in_.insert(swap_in_.end(), {sequence.blocks[i], sequence.host_blocks[i]});
  host_blocks_.give_back(sequence.host_blocks);  // nothing leaves after this in the same step
  return true;
}

bool Scheduler::add_blocks(Sequence& sequence, int32_t tokens) {
  const int64_t missing = blocks_for(tokens) - static_cast<int64_t>(sequence.blocks.size());
  if (missing > blocks_.num_free()) return false;
  for (int64_t i = 0; i < missing; ++i) sequence.blocks.push_back(blocks_.take());
  return true;
}

void Scheduler::write_plan(StepPlan& plan) {
  plan.swap_out = swap_out_;
  plan.swap_in = swap_in_;
  plan.cu_seqlens_q.push_back(0);
  for (const Running& running : running_)
    if (running.num_scheduled > 0)
      plan.max_blocks =
          std::max(plan.max_blocks,
                   static_cast<int32_t>(blocks_for(running.sequence.num_computed + running.num_scheduled)));
  for (const bool prefill : {true, false})
    for (Running& running : running_)
      if (running.num_scheduled > 0 && running.sequence.in_prompt() == prefill) {
        write_sequence(running, plan);
        plan.num_prefill_seqs += prefill;
      }
}

void Scheduler::write_sequence(Running& running, StepPlan& plan) const {
  const Sequence& sequence = running.sequence;
  const int32_t first_token = plan.num_tokens(), block_size = options_.block_size;
  for (int32_t i = 0; i < running.num_scheduled; ++i) {
    const int32_t position = sequence.num_computed + i;
    plan.tokens.push_back(sequence.tokens[static_cast<size_t>(position)]);
    plan.positions.push_back(position);
    plan.slot_mapping.push_back(sequence.blocks[static_cast<size_t>(position / block_size)] * block_size +
                                position % block_size);
  }
  plan.cu_seqlens_q.push_back(plan.num_tokens());
  plan.context_lens.push_back(sequence.num_computed + running.num_scheduled);
  for (size_t i = 0; i < static_cast<size_t>(plan.max_blocks); ++i)
    plan.block_table.push_back(i < sequence.blocks.size() ? sequence.blocks[i] : 0);
  running.first_logit_row = static_cast<int32_t>(plan.logit_rows.size());
  write_logit_rows(running, first_token, plan);
  running.num_logit_rows = static_cast<int32_t>(plan.logit_rows.size()) - running.first_logit_row;
}

void Scheduler::write_logit_rows(Running& running, int32_t first_token, StepPlan& plan) const {
  const Sequence& sequence = running.sequence;
  const int32_t end = sequence.num_computed + running.num_scheduled;
  if (sequence.sampling().prompt_logprobs) {
    // The token at one position scores the next; those that a preempted run has scored are known.
    const int32_t last = std::min(end, sequence.prompt_length() - 1);
    for (int32_t position = std::max(sequence.num_computed, sequence.num_scored() - 1); position < last;
         ++position)
      plan.logit_rows.push_back({.token_index = first_token + position - sequence.num_computed,
                                 .target = sequence.tokens[static_cast<size_t>(position) + 1],
                                 .position = position + 1,
                                 .num_top_logprobs = 0});
  }
  if (end == sequence.num_tokens() && sequence.wants_token(options_.limits)) {
    LogitRow row = drawn_row(sequence, plan);
    row.token_index = first_token + running.num_scheduled - 1;
    plan.logit_rows.push_back(row);
  }
}

LogitRow Scheduler::drawn_row(const Sequence& sequence, StepPlan& plan) const {
  const SamplingParams& sampling = sequence.sampling();
  LogitRow row{.target = -1,
               .seed = sampling.seed,
               .stream = sampling.own_seed ? kOwnSeedStream : stream_of_row(sequence.row()),
               .position = sequence.num_tokens(),
               .temperature = sampling.temperature,
               .top_p = sampling.top_p,
               .min_p = sampling.min_p,
               .top_k = sampling.top_k,
               .repetition_penalty = sampling.repetition_penalty,
               .presence_penalty = sampling.presence_penalty,
               .frequency_penalty = sampling.frequency_penalty,
               .num_top_logprobs = sampling.logprobs};
  row.history_begin = row.history_end = static_cast<int32_t>(plan.history_tokens.size());
  if (sampling.repetition_penalty != 1 || sampling.presence_penalty != 0 || sampling.frequency_penalty != 0) {
    std::map<int32_t, int32_t> counts;  // token → times in the answer
    for (int32_t i = 0; i < sequence.num_tokens(); ++i)
      counts[sequence.tokens[static_cast<size_t>(i)]] += i >= sequence.prompt_length();
    for (const auto& [token, count] : counts) {
      plan.history_tokens.push_back(token);
      plan.history_counts.push_back(count);
    }
    row.history_end = static_cast<int32_t>(plan.history_tokens.size());
  }
  row.banned_begin = row.banned_end = static_cast<int32_t>(plan.banned_tokens.size());
  if (sequence.num_output_tokens() < sampling.min_tokens) {
    for (const auto* ids : {&options_.limits.eos_token_ids, &sampling.stop_token_ids})
      plan.banned_tokens.insert(plan.banned_tokens.end(), ids->begin(), ids->end());
    row.banned_end = static_cast<int32_t>(plan.banned_tokens.size());
  }
  return row;
}

std::vector<RowResult> Scheduler::postprocess(const StepPlan& plan, const std::vector<TokenResult>& results) {
  std::vector<RowResult> finished;
  for (auto at = running_.begin(); at != running_.end();) {
    Sequence& sequence = at->sequence;
    sequence.num_computed += at->num_scheduled;
    bool done = false;
    for (int32_t i = 0; at->num_scheduled > 0 && i < at->num_logit_rows && !done; ++i) {
      const auto row = static_cast<size_t>(at->first_logit_row) + static_cast<size_t>(i);
      done = results[row].fault != TokenFault::none;
      if (done)
        sequence.fail(results[row].fault, plan.logit_rows[row].position);
      else if (plan.logit_rows[row].target >= 0)
        sequence.add_prompt_logprob(results[row].logprob);
      else
        done = sequence.append(results[row], options_.limits);
    }
    // A prompt that is only scored ends where its answer would begin.
    if (at->num_scheduled > 0 && sequence.num_computed == sequence.prompt_length() &&
        sequence.num_output_tokens() == 0 && !sequence.wants_token(options_.limits))
      done = true;
    if (!done) {
      ++at;
      continue;
    }
    blocks_.give_back(sequence.blocks);
    if (sequence.finish_reason() != FinishReason::error) pacing_.finish(sequence.num_output_tokens());
    finished.push_back(sequence.finish(sequence.finish_reason()));
    at = running_.erase(at);
  }
  return finished;
}

void Scheduler::drop_waiting() {
  // Preempted sequences have begun, and their blocks will come free.
  std::erase_if(waiting_, [this](Sequence& s) {
    if (s.num_output_tokens() > 0 || s.num_scored() > 1) return false;
    host_blocks_.give_back(s.host_blocks);
    return true;
  });
}

void Scheduler::drop_all() {
  for (Sequence& sequence : waiting_) host_blocks_.give_back(sequence.host_blocks);
  waiting_.clear();
  for (Running& running : running_) blocks_.give_back(running.sequence.blocks);
  running_.clear();
}

}  // namespace moerun
