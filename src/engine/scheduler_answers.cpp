// What a step brings back: tokens to sequences, ended rows, and those that are given up.
#include <algorithm>
#include <exception>
#include <numeric>

#include "engine/scheduler.h"

namespace moerun {

std::vector<RowResult> Scheduler::postprocess(const StepPlan& plan, const std::vector<TokenResult>& results) {
  std::vector<size_t> first_row(static_cast<size_t>(plan.num_seqs()) + 1);  // of each sequence of the plan
  for (const LogitRow& row : plan.logit_rows)
    if (row.sequence < plan.num_seqs()) ++first_row[static_cast<size_t>(row.sequence) + 1];
  std::partial_sum(first_row.begin(), first_row.end(), first_row.begin());
  branch_scores_.take(results.data() + first_row[static_cast<size_t>(plan.num_seqs())]);
  std::vector<RowResult> finished;
  for (auto at = running_.begin(); at != running_.end();) {
    bool done = false;
    if (at->num_scheduled > 0) {
      const size_t first = first_row[at->place];
      const auto rows = std::span(plan.logit_rows).subspan(first, first_row[at->place + 1] - first);
      done = take(at->sequence, at->num_scheduled, rows, results.data() + first, finished);
    }
    if (!done) {
      ++at;
      continue;
    }
    set_routed(at->sequence);
    release(at->sequence);
    finish(at->sequence, finished);
    at = running_.erase(at);
  }
  return finished;
}

bool Scheduler::take(Sequence& sequence, int32_t num_computed, std::span<const LogitRow> rows,
                     const TokenResult* results, std::vector<RowResult>& finished) {
  const bool in_prompt = sequence.in_prompt();
  sequence.num_computed += num_computed;
  bool done = false;
  size_t drawn = 0;  // rows up to the first that is drawn from
  while (drawn < rows.size() && !done && (drawn == 0 || rows[drawn - 1].target >= 0)) {
    done = take(sequence, rows[drawn], results[drawn]);
    ++drawn;
  }
  if (in_prompt && options_.share_prefixes) {
    prefixes_.saved_states(sequence);
    if (sequence.failed())
      prefixes_.forget(sequence);
    else if (!sequence.in_prompt())
      prefixes_.computed(sequence);
    if (!prefixes_.computing(sequence.key())) branch_scores_.forget(sequence.key());
  }
  if (drawn < rows.size() && rows[drawn - 1].target < 0)
    fork(sequence, rows[drawn], results + drawn, finished);
  // A prompt that is only scored ends where its answer would begin.
  return done || (sequence.num_computed == sequence.prompt_length() && sequence.num_output_tokens() == 0 &&
                  !sequence.wants_token(options_.limits));
}

bool Scheduler::take(Sequence& sequence, const LogitRow& row, const TokenResult& result) const {
  if (result.fault != TokenFault::none) {
    sequence.fail(result.fault, row.position);
    return true;
  }
  if (row.target < 0) return sequence.append(result, options_.limits);
  sequence.add_score(score_of(result));
  return false;
}

void Scheduler::fork(Sequence& sequence, const LogitRow& row, const TokenResult* results,
                     std::vector<RowResult>& finished) {
  std::deque<Sequence> begun;
  for (Sequence& other : sequence.fork()) {
    if (take(other, row, *results++)) {
      set_routed(other);
      finish(other, finished);
    } else {
      begun.push_back(std::move(other));
    }
  }
  // libstdc++ moves what lies before the place onto itself where nothing is inserted, and the tokens of
  // sequences that began earlier are gone.
  if (begun.empty()) return;
  // Behind those that began earlier.
  const auto at =
      std::find_if(waiting_.begin(), waiting_.end(), [](const Sequence& s) { return !s.begun(); });
  waiting_.insert(at, std::make_move_iterator(begun.begin()), std::make_move_iterator(begun.end()));
}

void Scheduler::finish(Sequence& sequence, std::vector<RowResult>& finished) {
  if (!sequence.failed()) {
    pacing_.finish(sequence.num_output_tokens());
    forecast_.end(sequence);
  }
  if (std::optional<RowResult> result = sequence.finish(sequence.finish_reason()))
    finished.push_back(std::move(*result));
}

void Scheduler::set_routed(Sequence& sequence) const {
  if (!routed_ || sequence.failed()) return;
  const int32_t prompt = sequence.prompt_length();
  std::vector<uint8_t> of_prompt;
  if (sequence.index() == 0) of_prompt = routed_->read(sequence.kv, 0, prompt);
  // The answer's last token went through no layer.
  const int32_t tokens = sequence.num_output_tokens(), last = std::max(tokens - 1, 0);
  std::vector<uint8_t> of_answer = routed_->read(sequence.kv, prompt, prompt + last);
  const std::vector<uint8_t> none = routed_->none(static_cast<size_t>(tokens - last));
  of_answer.insert(of_answer.end(), none.begin(), none.end());
  sequence.set_routed(std::move(of_prompt), std::move(of_answer));
}

void Scheduler::drop_waiting() {
  // Preempted sequences have begun, and their blocks will come free.
  std::erase_if(waiting_, [this](Sequence& s) {
    if (s.begun()) return false;
    release(s);
    return true;
  });
}

void Scheduler::drop_all() {
  for (Sequence& sequence : waiting_) release(sequence);
  waiting_.clear();
  for (Running& running : running_) {
    prefixes_.forget(running.sequence);
    branch_scores_.forget(running.sequence.key());
    release(running.sequence);
  }
  running_.clear();
}

}  // namespace moerun
