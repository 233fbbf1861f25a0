#pragma once
#include <cstdint>
#include <vector>

#include "moerun/sampling.h"

namespace moerun {

/// One row of logits that a step needs, and what becomes of it: the next token is drawn from it (target < 0),
/// or a given token is scored (prompt log-probabilities, target ≥ 0).
struct LogitRow {
  int32_t token_index = 0;  ///< row of the step's hidden states
  int32_t target = -1;
  int32_t sequence = 0;  ///< its place among the plan's
  uint64_t stream = 0;   ///< randomness is keyed by (draw.seed, stream, position): moerun/random.h
  int32_t position = 0;  ///< of the token that is drawn or scored
  DrawParams draw;       ///< of a token that is scored, `logprobs` alone counts
  int32_t history_begin = 0, history_end = 0;  ///< range of `history_*`: tokens seen, for the penalties
  int32_t banned_begin = 0,
          banned_end = 0;                ///< range of `banned_tokens`: ids that cannot be chosen (min_tokens)
  int32_t bias_begin = 0, bias_end = 0;  ///< range of `biases`: added to the logits first
  int32_t mask = -1;  ///< place among the step's masks of the one that says what can be chosen; −1: none does
};

/// What one data-parallel group does in one step, as integers alone. Made by the leader's scheduler,
/// broadcast over tp; every tp rank runs the same plan. Sequences that prefill come first, then those that
/// decode.
///
/// A sequence's prompt positions are always computed by the prefill path (in chunks of any size; with gated
/// delta nets a step ends at a multiple of kDeltaChunk or at the prompt's end) and later positions by the
/// decode path, one a step, also when a preempted sequence is computed again because the
/// host has no room for its keys and values: the path a token takes never depends on load.
struct StepPlan {
  std::vector<int32_t> tokens;        ///< [n]
  std::vector<int32_t> positions;     ///< [n]
  std::vector<int32_t> slot_mapping;  ///< [n] block · block_size + offset, where the token's key and value go
  std::vector<int32_t> cu_seqlens_q;  ///< [s + 1] first token of each sequence
  std::vector<int32_t> context_lens;  ///< [s] keys each sequence attends to, the step's own included
  std::vector<int32_t> block_table;   ///< [s, max_blocks] row-major
  int32_t max_blocks = 0;
  /// Keys and values of preempted sequences, [device block, host block]…: what leaves before the step, and
  /// then what comes back before it.
  std::vector<int32_t> swap_out, swap_in;
  /// [from block, to block, tokens]…: after those, the first tokens of a block become those of another.
  std::vector<int32_t> copies;
  /// States of models with gated delta nets, in slots; without such layers all of these are empty. Where each
  /// sequence's is [s]; of preempted sequences [device slot, host slot]…, what leaves before the step and
  /// what comes back; [from slot, to slot]…, copied after that; and [sequence, position, slot]…: a sequence
  /// that prefills leaves a copy of its state where the step comes to that position, a chunk's border or the
  /// end of what it computes.
  std::vector<int32_t> state_slots, state_swap_out, state_swap_in, state_copies, state_saves;
  int32_t num_prefill_seqs = 0;  ///< the first ones; the rest decode
  std::vector<LogitRow> logit_rows;
  std::vector<int32_t> history_tokens;  ///< distinct ids seen by a row that asks for penalties
  std::vector<int32_t> history_counts;  ///< times in the answer (0: in the prompt alone)
  std::vector<int32_t> banned_tokens;
  std::vector<TokenBias> biases;  ///< of each row's range no token twice
  int32_t num_masks = 0, mask_words = 0;
  /// [num_masks, mask_words] bit i % 32 of word i / 32 is set: token i can be chosen. Not known before the
  /// tokens of the step before: filled in between StepRunner::submit and collect.
  std::vector<uint32_t> masks;

  /// Each member in turn, to travel: `io` writes or reads it.
  template <class Plan, class Io>
  static void each(Plan& p, Io&& io) {
    io(p.tokens), io(p.positions), io(p.slot_mapping), io(p.cu_seqlens_q), io(p.context_lens);
    io(p.block_table), io(p.max_blocks), io(p.swap_out), io(p.swap_in), io(p.copies);
    io(p.state_slots), io(p.state_swap_out), io(p.state_swap_in), io(p.state_copies), io(p.state_saves);
    io(p.num_prefill_seqs);
    io(p.logit_rows), io(p.history_tokens), io(p.history_counts), io(p.banned_tokens);
    io(p.biases), io(p.num_masks), io(p.mask_words), io(p.masks);
  }
  const uint32_t* mask_of(const LogitRow& row) const {
    return row.mask < 0 ? nullptr
                        : masks.data() + static_cast<size_t>(row.mask) * static_cast<size_t>(mask_words);
  }
  int32_t num_tokens() const { return static_cast<int32_t>(tokens.size()); }
  int32_t num_seqs() const { return static_cast<int32_t>(context_lens.size()); }
};

/// Why there is no token: the model's own logits of the row hold a NaN or an infinity, or no token of the
/// vocabulary can be chosen.
enum class TokenFault : uint8_t { none = 0, not_finite = 1, all_banned = 2 };

/// What became of one LogitRow.
struct TokenResult {
  int32_t token = -1;                   ///< drawn, or the target
  TokenFault fault = TokenFault::none;  ///< else nothing else here means anything
  float logprob = 0;  ///< log-softmax of the model's own logits (before temperature and penalties)
  std::vector<int32_t> top_tokens;  ///< [draw.logprobs] best first, ties by index
  std::vector<float> top_logprobs;

  /// Each member in turn, to travel: `io` writes or reads it.
  template <class Result, class Io>
  static void each(Result& r, Io&& io) {
    io(r.token), io(r.fault), io(r.logprob), io(r.top_tokens), io(r.top_logprobs);
  }
};

}  // namespace moerun
