#include "engine/plan_writer.h"

#include <algorithm>
#include <map>

#include "moerun/random.h"

namespace moerun {

namespace {

class PlanWriter {
 public:
  PlanWriter(KeptOfSequences kept, const AnswerLimits& limits)
      : cache_(*kept.cache), states_(kept.states), limits_(limits) {
    plan_.state_saves = std::move(kept.state_saves);
  }

  StepPlan write(std::span<const Scheduled> step, std::span<const Branch> branches) {
    plan_.swap_out = cache_.moves().swap_out;
    plan_.swap_in = cache_.moves().swap_in;
    plan_.copies = cache_.moves().copies;
    if (has_states()) {
      plan_.state_swap_out = states_->moves().swap_out;
      plan_.state_swap_in = states_->moves().swap_in;
      plan_.state_copies = states_->moves().copies;
    }
    plan_.cu_seqlens_q.push_back(0);
    for (const Scheduled& one : step)
      plan_.max_blocks =
          std::max(plan_.max_blocks,
                   static_cast<int32_t>(cache_.blocks_for(one.sequence->num_computed + one.num_tokens)));
    for (const Scheduled& one : step) {
      plan_.num_prefill_seqs += one.sequence->in_prompt();
      add(one);
    }
    for (size_t i = 0; i < branches.size(); ++i) {
      const Branch& branch = branches[i];
      const int32_t first = step[branch.of].sequence->num_computed;
      plan_.logit_rows.push_back({.token_index = plan_.cu_seqlens_q[branch.of] + branch.position - 1 - first,
                                  .target = branch.token,
                                  .sequence = static_cast<int32_t>(step.size() + i),
                                  .position = branch.position,
                                  .draw = score_of(*step[branch.of].sequence)});
    }
    return std::move(plan_);
  }

 private:
  bool has_states() const { return states_ && states_->any(); }
  void add(const Scheduled& one) {
    const Sequence& sequence = *one.sequence;
    const int32_t first_token = plan_.num_tokens(), block_size = cache_.block_size();
    const std::vector<int32_t>& blocks = sequence.kv.device;
    for (int32_t i = 0; i < one.num_tokens; ++i) {
      const int32_t position = sequence.num_computed + i;
      plan_.tokens.push_back(sequence.token(position));
      plan_.positions.push_back(position);
      plan_.slot_mapping.push_back(blocks[static_cast<size_t>(position / block_size)] * block_size +
                                   position % block_size);
    }
    add_logit_rows(one, first_token);
    plan_.cu_seqlens_q.push_back(plan_.num_tokens());
    plan_.context_lens.push_back(sequence.num_computed + one.num_tokens);
    if (has_states()) plan_.state_slots.push_back(sequence.state.device);
    for (size_t i = 0; i < static_cast<size_t>(plan_.max_blocks); ++i)
      plan_.block_table.push_back(i < blocks.size() ? blocks[i] : 0);
  }

  void add_logit_rows(const Scheduled& one, int32_t first_token) {
    const Sequence& sequence = *one.sequence;
    const int32_t end = sequence.num_computed + one.num_tokens;
    if (sequence.scored()) {
      // The token at one position scores the next; those that a preempted run has scored are known.
      const int32_t last = std::min(end, sequence.prompt_length() - 1);
      for (int32_t position = std::max(sequence.num_computed, sequence.first_unscored() - 1); position < last;
           ++position)
        plan_.logit_rows.push_back({.token_index = first_token + position - sequence.num_computed,
                                    .target = sequence.token(position + 1),
                                    .sequence = plan_.num_seqs(),
                                    .position = position + 1,
                                    .draw = score_of(sequence)});
    }
    if (end == sequence.num_tokens() && sequence.wants_token(limits_))
      add_drawn_rows(one, first_token + one.num_tokens - 1);
  }

  /// The token that greedy would choose tells whether it is the one that is scored.
  static DrawParams score_of(const Sequence& sequence) {
    const SamplingParams& sampling = sequence.sampling();
    return {.logprobs = std::max(sampling.prompt_logprobs, sampling.prompt_is_greedy ? 1 : 0)};
  }

  void add_drawn_rows(const Scheduled& one, int32_t token_index) {
    const Sequence& sequence = *one.sequence;
    const SamplingParams& sampling = sequence.sampling();
    const uint64_t stream = sampling.own_seed ? kOwnSeedStream : stream_of_row(sequence.row());
    LogitRow row{.token_index = token_index,
                 .sequence = plan_.num_seqs(),
                 .position = sequence.num_tokens(),
                 .draw = sampling.draw};
    row.history_begin = static_cast<int32_t>(plan_.history_tokens.size());
    if (sampling.draw.penalises()) add_history(sequence);
    row.history_end = static_cast<int32_t>(plan_.history_tokens.size());
    row.banned_begin = static_cast<int32_t>(plan_.banned_tokens.size());
    if (sequence.num_output_tokens() < sampling.min_tokens)
      for (const auto* ids : {&limits_.eos_token_ids, &sampling.stop_token_ids})
        plan_.banned_tokens.insert(plan_.banned_tokens.end(), ids->begin(), ids->end());
    row.banned_end = static_cast<int32_t>(plan_.banned_tokens.size());
    row.bias_begin = static_cast<int32_t>(plan_.biases.size());
    plan_.biases.insert(plan_.biases.end(), sampling.logit_bias.begin(), sampling.logit_bias.end());
    row.bias_end = static_cast<int32_t>(plan_.biases.size());
    if (const int32_t words = sequence.mask_words(); words > 0) {
      row.mask = plan_.num_masks++;
      plan_.mask_words = words;
    }
    for (int32_t i = 0; i < one.num_draws; ++i) {
      row.stream = stream_of_answer(stream, static_cast<uint64_t>(sequence.index() + i));
      plan_.logit_rows.push_back(row);
    }
  }

  void add_history(const Sequence& sequence) {
    std::map<int32_t, int32_t> counts;  // token → times in the answer
    for (int32_t i = 0; i < sequence.num_tokens(); ++i)
      counts[sequence.token(i)] += i >= sequence.prompt_length();
    for (const auto& [token, count] : counts) {
      plan_.history_tokens.push_back(token);
      plan_.history_counts.push_back(count);
    }
  }

  const KvCache& cache_;
  const StateSlots* states_;
  const AnswerLimits& limits_;
  StepPlan plan_;
};

}  // namespace

StepPlan write_plan(std::span<const Scheduled> step, std::span<const Branch> branches, KeptOfSequences kept,
                    const AnswerLimits& limits) {
  return PlanWriter(std::move(kept), limits).write(step, branches);
}

}  // namespace moerun
