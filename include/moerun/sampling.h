#pragma once
#include <cstdint>
#include <string>
#include <vector>

namespace moerun {

/// How one token is drawn: what a row asks, a plan carries and a kernel reads are this one struct. Names and
/// meanings are those of vLLM's SamplingParams.
struct DrawParams {
  /// Randomness is keyed by (seed, row, answer, position) and by nothing else; by (seed, answer, position)
  /// where the row has brought the seed itself.
  uint64_t seed = 0;
  float temperature = 0;         ///< below kGreedyTemperature, so also 0: greedy
  float top_p = 1;               ///< (0, 1]
  int32_t top_k = 0;             ///< 0 is off
  float min_p = 0;               ///< [0, 1]
  float repetition_penalty = 1;  ///< over prompt and answer; > 0
  float presence_penalty = 0;    ///< over the answer; [-2, 2]
  float frequency_penalty = 0;   ///< over the answer; [-2, 2]
  int32_t logprobs = -1;         ///< −1: none; 0: of the chosen tokens; n: and of the n most likely

  bool penalises() const {
    return repetition_penalty != 1 || presence_penalty != 0 || frequency_penalty != 0;
  }
  bool operator==(const DrawParams&) const = default;
};

/// What is added to a token's logit before anything else.
struct TokenBias {
  int32_t token = 0;
  float bias = 0;
  bool operator==(const TokenBias&) const = default;
};

/// What every answer of a row must be (`structured_outputs`), but for one that is cut by length or a stop
/// string.
struct AnswerForm {
  enum class Kind : uint8_t { any, json_object, json_schema, regex, choice, grammar };
  Kind kind = Kind::any;
  std::string text;  ///< the schema (JSON), the regex, the choices (a JSON list), the grammar (EBNF)
  bool operator==(const AnswerForm&) const = default;
};

/// How one row is answered. A job sets the options for all rows (`sampling:`), a row may override each; their
/// names and ranges are in job/sampling_fields.cpp.
struct SamplingParams {
  DrawParams draw;
  bool own_seed = false;  ///< the seed is the row's, not the job's
  int32_t n = 1;          ///< answers to the row, each from draws of its own
  int32_t max_tokens = 16;
  int32_t min_tokens = 0;         ///< end-of-sequence and stop token ids cannot be chosen before this many
  std::vector<std::string> stop;  ///< the answer ends before the first of these; the text leaves it out
  bool include_stop_str_in_output = false;  ///< the text ends behind the stop string instead
  bool skip_special_tokens = true;          ///< the text leaves special tokens out
  /// Of a longer prompt the last tokens are kept: so many; −1: model.max_model_len; 0: it is not cut.
  int32_t truncate_prompt_tokens = 0;
  std::vector<int32_t> stop_token_ids;
  bool ignore_eos = false;
  std::vector<TokenBias> logit_bias;       ///< ascending by token, none of them 0
  std::vector<int32_t> allowed_token_ids;  ///< ascending: no other can be chosen; empty: all can
  std::vector<std::string> bad_words;      ///< texts whose tokens' last cannot be chosen behind the others
  int32_t prompt_logprobs = -1;  ///< −1: none; 0: of the prompt's tokens; n: and of the n most likely at each
  int32_t prompt_logprobs_start = 0;  ///< position of the first token that is scored
  bool prompt_is_greedy = false;      ///< whether each scored token is the one that greedy would choose

  bool scores_prompt() const { return prompt_logprobs >= 0; }
  AnswerForm form;
  int32_t thinking_budget = -1;  ///< tokens after which the end of thinking is chosen; −1: none
  /// What a conversation says of the model's thinking; `unsaid` is as its template has it.
  enum class Thinking : uint8_t { no_conversation, unsaid, off, on } thinking = Thinking::no_conversation;
  /// Whether which tokens can be chosen is more than end-of-sequence and stop tokens.
  bool restricts_tokens() const {
    return !allowed_token_ids.empty() || !bad_words.empty() || form.kind != AnswerForm::Kind::any ||
           thinking_budget >= 0;
  }
  bool operator==(const SamplingParams&) const = default;
  /// Each member in turn, to travel: `io` writes or reads it.
  template <class Params, class Io>
  static void each(Params& p, Io&& io) {
    io(p.draw), io(p.own_seed), io(p.n), io(p.max_tokens), io(p.min_tokens), io(p.stop), io(p.stop_token_ids);
    io(p.include_stop_str_in_output), io(p.skip_special_tokens), io(p.truncate_prompt_tokens);
    io(p.ignore_eos), io(p.prompt_logprobs), io(p.prompt_logprobs_start), io(p.prompt_is_greedy);
    io(p.logit_bias), io(p.allowed_token_ids), io(p.bad_words), io(p.form.kind), io(p.form.text);
    io(p.thinking_budget), io(p.thinking);
  }
};

inline constexpr int32_t kMaxLogprobs = 20;
inline constexpr int32_t kMaxAnswers = 16384;  ///< n
/// Lower temperatures are greedy, as in vLLM: nothing but ties could still be drawn, and logits divided by
/// less run out of float32.
inline constexpr float kGreedyTemperature = 1e-5F;

}  // namespace moerun
