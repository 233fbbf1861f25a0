#include "engine/scheduler.h"

#include <algorithm>
#include <cmath>
#include <exception>
#include <numeric>

#include "engine/plan_writer.h"

namespace moerun {

Scheduler::Scheduler(const SchedulerOptions& options)
    : options_(options),
      cache_({.block_size = options.block_size,
              .num_blocks = options.num_blocks,
              .num_host_blocks = options.num_host_blocks}),
      states_({.num_slots = options.states.num_slots, .num_host_slots = options.states.num_host_slots}),
      prefixes_(cache_, {.slots = &states_,
                         .chunk = options.states.chunk,
                         .most_kept = static_cast<size_t>(
                             std::max<int64_t>(options.states.num_slots - options.max_num_seqs, 0))}),
      forecast_(cache_, options.limits.max_model_len),
      pacing_({.max_num_seqs = options.max_num_seqs,
               .max_num_batched_tokens = options.max_num_batched_tokens,
               .block_size = options.block_size,
               .num_blocks = options.num_blocks,
               .chunk = options.states.chunk}) {
  if (options.routed.kept())
    routed_.emplace(options.routed, KvCache::Size{.block_size = options.block_size,
                                                  .num_blocks = options.num_blocks,
                                                  .num_host_blocks = options.num_host_blocks});
}

void Scheduler::add(Sequence sequence) {
  const int64_t room = options_.limits.max_model_len - sequence.prompt_length();
  const int64_t most = std::min<int64_t>(sequence.sampling().max_tokens, room);
  for (int32_t answer = 0; answer < sequence.sampling().n; ++answer)
    pacing_.add(answer == 0 || !options_.share_prefixes ? sequence.prompt_length() : 0, most,
                RoomForecast::of_known_length(sequence.sampling()));
  // Where nothing is shared, each answer computes the prompt.
  std::vector<Sequence> others;
  if (!options_.share_prefixes && sequence.num_answers() > 1) others = sequence.fork();
  waiting_.push_back(std::move(sequence));
  std::move(others.begin(), others.end(), std::back_inserter(waiting_));
}

int64_t Scheduler::num_waiting() const {
  int64_t count = 0;
  for (const Sequence& sequence : waiting_) count += sequence.num_answers();
  for (const Running& running : running_) count += running.sequence.num_answers() - 1;
  return count;
}

StepPlan Scheduler::schedule() {
  budget_ = options_.max_num_batched_tokens;
  prompt_budget_ = pacing_.prompt_tokens(static_cast<uint64_t>(num_waiting()), rows_left_);
  // No step is empty for pacing's sake.
  if (std::all_of(running_.begin(), running_.end(), [](const Running& r) { return r.sequence.in_prompt(); }))
    prompt_budget_ = std::max(prompt_budget_, PromptPacing::kFewest);
  for (Running& running : running_) running.num_scheduled = 0;
  cache_.begin_step();
  states_.begin_step();
  prefixes_.begin_step();
  schedule_running();
  admit();
  max_blocks_used_ = std::max(max_blocks_used_, cache_.num_used());
  std::vector<Scheduled> step;
  for (const bool prefill : {true, false})
    for (Running& running : running_)
      if (running.num_scheduled > 0 && running.sequence.in_prompt() == prefill) {
        const Sequence& sequence = running.sequence;
        running.place = step.size();
        step.push_back({&sequence, running.num_scheduled, sequence.num_answers()});
        if (prefill)
          branch_scores_.schedule(sequence.key(), running.place, sequence.num_computed,
                                  sequence.num_computed + running.num_scheduled);
      }
  return write_plan(step, branch_scores_.branches(), {&cache_, &states_, state_saves(step)}, options_.limits);
}

std::vector<int32_t> Scheduler::state_saves(std::span<const Scheduled> step) {
  std::vector<int32_t> saves;
  if (!states_.any() || !options_.share_prefixes) return saves;
  for (size_t place = 0; place < step.size(); ++place) {
    const Sequence& sequence = *step[place].sequence;
    if (!sequence.in_prompt()) break;  // those that prefill come first
    const std::vector<int32_t> of_one =
        prefixes_.save_states(sequence, sequence.num_computed + step[place].num_tokens);
    for (size_t i = 0; i < of_one.size(); i += 2)
      saves.insert(saves.end(), {static_cast<int32_t>(place), of_one[i], of_one[i + 1]});
  }
  return saves;
}

int32_t Scheduler::prefill_tokens(const Sequence& sequence, int32_t from, int32_t room) const {
  const int32_t left = sequence.prompt_length() - from, chunk = options_.states.chunk;
  if (room >= left || chunk == 0) return std::min(left, room);
  return std::max(room + from, 0) / chunk * chunk - from;
}

void Scheduler::release(Sequence& sequence) {
  cache_.release(sequence.kv);
  states_.release(sequence.state);
  sequence.num_computed = 0;
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
      tokens = prefill_tokens(sequence, sequence.num_computed, std::min(budget_ - decodes, prompt_budget_));
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

bool Scheduler::will_have_room(const Sequence& next, int32_t shared) {
  if (options_.num_seqs_of_any_length >= options_.max_num_seqs || running_.empty()) return true;
  if (!RoomForecast::of_known_length(next.sampling()) && num_running() < options_.num_seqs_of_any_length)
    return true;
  if (!forecast_.begun()) {
    std::vector<const Sequence*> running;
    for (const Running& one : running_) running.push_back(&one.sequence);
    forecast_.begin(running);
  }
  return forecast_.admit(next, shared);
}

void Scheduler::admit() {
  constexpr ptrdiff_t kMostPassedOver = 1024;
  forecast_.forget();
  bool full = false;
  for (auto at = waiting_.begin(); at != waiting_.end() && at - waiting_.begin() < kMostPassedOver;) {
    full = full || budget_ <= 0 || num_running() >= options_.max_num_seqs;
    if (full) {
      // Who is to wait for a prompt of this step says now what shall be scored for it, or which state is
      // kept.
      PrefixCache::Match ignored;
      if (at->scored() || states_.any()) defers(*at, ignored);
      ++at;
      continue;
    }
    switch (admit(*at)) {
      case Admission::no_room:
        if (running_.empty() && make_waiting_let_go(*at)) break;  // nobody else will make room: once more
        full = true;
        break;
      case Admission::deferred:
        ++at;
        break;
      case Admission::admitted:
        at = waiting_.erase(at);
        break;
    }
  }
}

bool Scheduler::defers(Sequence& next, PrefixCache::Match& match) {
  // A token that is computed by waiting for it costs a step's delay, one that is computed again costs itself.
  constexpr int32_t kWorthAStep = 8;
  if (!options_.share_prefixes || !next.in_prompt() || next.num_computed > 0) return false;
  if (next.waits_for && prefixes_.computing(*next.waits_for)) return true;
  match = prefixes_.find(next);
  if (match.to_come < match.shared + kWorthAStep) return false;
  if (states_.any() && !prefixes_.want_state(match.to_come_of, match.to_come)) return false;
  next.waits_for = match.to_come_of;
  if (match.branch > 0)
    branch_scores_.want(next.key(), match.to_come_of, match.branch, next.token(match.branch));
  return true;
}

Scheduler::Admission Scheduler::admit(Sequence& next) {
  // Answers that take their whole prompt over need no part of the prompts' budget.
  if (next.in_prompt() && next.num_output_tokens() == 0 && prompt_budget_ <= 0) return Admission::no_room;
  PrefixCache::Match match;
  if (defers(next, match)) return Admission::deferred;
  if (!will_have_room(next, match.shared)) return Admission::no_room;
  const int32_t begin = std::max(match.shared, next.num_computed);
  if (states_.any() && begin < next.prompt_length() &&
      prefill_tokens(next, begin, std::min(budget_, prompt_budget_)) <= 0)
    return Admission::no_room;  // before it takes a slot for its state
  // Room for all that is known of it, and for some steps of those that run.
  const int64_t growth = num_running() * PromptPacing::kStepsKeptFree / options_.block_size + 1;
  const int64_t shared_blocks = match.shared / options_.block_size;
  const int64_t missing =
      cache_.blocks_for(next.num_tokens() + 1) - shared_blocks - static_cast<int64_t>(next.kv.device.size());
  const size_t matched = match.shared > 0 ? 1 : 0;
  while (states_.any() && next.state.device < 0 && states_.num_free() == 0)
    if (!prefixes_.evict(matched)) return Admission::no_room;
  if (!make_free(missing + growth, matched) && !running_.empty()) return Admission::no_room;
  if (match.shared > 0 && missing <= cache_.num_free()) take_over(next, match);
  const bool in_prompt = next.in_prompt();
  const int32_t tokens =
      in_prompt ? prefill_tokens(next, next.num_computed, std::min(budget_, prompt_budget_)) : 1;
  if (tokens <= 0) return Admission::no_room;
  make_free(cache_.blocks_for(next.num_computed + tokens) - static_cast<int64_t>(next.kv.device.size()));
  if (!cache_.swap_in(next.kv) || !cache_.grow(next.kv, next.num_computed + tokens))
    return Admission::no_room;
  if (states_.any() && !states_.hold(next.state)) return Admission::no_room;
  running_.push_back({.sequence = std::move(next), .num_scheduled = tokens});
  if (in_prompt && options_.share_prefixes) prefixes_.begin(running_.back().sequence);
  branch_scores_.drop(running_.back().sequence.key());
  budget_ -= tokens;
  if (in_prompt) prompt_budget_ -= tokens;
  return Admission::admitted;
}

void Scheduler::take_over(Sequence& next, const PrefixCache::Match& match) {
  std::optional<PromptScore> branch;  // of the first token that is not in common
  if (next.scored() && match.alike == match.shared + 1 && match.alike < next.prompt_length())
    branch = branch_scores_.find(next.key(), match.alike);
  const int32_t shared = branch ? match.alike : match.shared;
  if (match.state >= 0 && states_.num_free() == 0) return;
  if (!cache_.share(*match.kv, shared, next.kv)) return;
  if (match.state >= 0) states_.copy(match.state, next.state);
  next.num_computed = shared;
  num_shared_tokens_ += shared;
  const int32_t scored = std::min(match.shared + 1, next.prompt_length());
  if (next.first_unscored() < scored) next.take_scores(*match.scores, scored);
  if (branch && next.first_unscored() == match.alike) next.add_score(*branch);
}

bool Scheduler::make_waiting_let_go(const Sequence& but) {
  bool any = false;
  for (Sequence& sequence : waiting_)
    if (&sequence != &but && (!sequence.kv.device.empty() || sequence.state.device >= 0)) {
      release(sequence);  // of no use without its beginning, so all of it
      any = true;
    }
  return any;
}

bool Scheduler::make_free(int64_t blocks, size_t but) {
  while (cache_.num_free() < blocks)
    if (!prefixes_.evict(but)) return false;
  return true;
}

bool Scheduler::make_room(std::list<Running>::iterator at, int32_t tokens) {
  while (!cache_.grow(at->sequence.kv, tokens)) {
    if (prefixes_.evict()) continue;
    const auto youngest = std::prev(running_.end());
    const bool itself = youngest == at;
    // Were the last one to begin anew, it would come no further than this.
    if (itself && running_.size() == 1 && make_waiting_let_go(at->sequence)) continue;
    preempt(youngest);
    if (itself) return false;
  }
  return true;
}

void Scheduler::preempt(std::list<Running>::iterator at) {
  Sequence& sequence = at->sequence;
  prefixes_.forget(sequence);
  branch_scores_.forget(sequence.key());
  if (states_.any()) {
    // Behind keys and values that stay because others use them too there is no state.
    if (sequence.num_computed > 0 && states_.has_host_slot() &&
        cache_.swap_out(sequence.kv, sequence.num_computed)) {
      states_.swap_out(sequence.state);
      ++num_swaps_;
    } else {
      release(sequence);
    }
  } else if (cache_.swap_out(sequence.kv, sequence.num_computed)) {
    ++num_swaps_;
  } else {
    sequence.num_computed = std::min(sequence.num_computed, cache_.release_own(sequence.kv));
  }
  waiting_.push_front(std::move(sequence));
  running_.erase(at);
  ++num_preemptions_;
}

void Scheduler::fill_masks(StepPlan& plan) {
  if (plan.num_masks == 0) return;
  std::vector<Sequence*> sequences(static_cast<size_t>(plan.num_seqs()));
  for (Running& running : running_)
    if (running.num_scheduled > 0) sequences[running.place] = &running.sequence;
  const auto words = static_cast<size_t>(plan.mask_words);
  plan.masks.resize(static_cast<size_t>(plan.num_masks) * words);
  std::vector<Sequence*> of_mask(static_cast<size_t>(plan.num_masks));  // answers drawn at once share one
  for (const LogitRow& row : plan.logit_rows)
    if (row.mask >= 0) of_mask[static_cast<size_t>(row.mask)] = sequences[static_cast<size_t>(row.sequence)];
  std::exception_ptr thrown;
#pragma omp parallel for schedule(dynamic)
  for (size_t i = 0; i < of_mask.size(); ++i) {
    try {
      of_mask[i]->fill_mask(std::span(plan.masks).subspan(i * words, words));
    } catch (...) {
#pragma omp critical
      thrown = std::current_exception();
    }
  }
  if (thrown) std::rethrow_exception(thrown);
}

}  // namespace moerun
