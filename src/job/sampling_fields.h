#pragma once
#include <optional>
#include <string>
#include <vector>

#include "job/fields.h"
#include "moerun/sampling.h"

namespace moerun {

/// What a row or a job may give to end its answers by: each token of an answer is compared with all of it.
struct StopLimits {
  static constexpr size_t kStrings = 256, kBytes = 4096;  ///< `stop`: how many, and of each
  static constexpr size_t kTokenIds = 4096;               ///< `stop_token_ids`
};

/// The sampling options by name, as a job's `sampling:` and a row of the input spell them.
const std::vector<Field<SamplingParams>>& sampling_fields();

/// The field of this name, or null.
const Field<SamplingParams>* find_sampling_field(std::string_view name);

/// Options that contradict each other.
struct Contradiction {
  std::string option;  ///< one of them
  std::string what;    ///< a sentence; empty: there is none
};
/// Once all are read.
Contradiction contradiction(const SamplingParams& sampling);

/// A sentence about scores that begin behind a prompt of so many tokens, or an empty string.
std::string beyond_prompt(const SamplingParams& sampling, size_t prompt_length);

/// What of the sampling needs a tokenizer, if anything does, for sentences.
struct TokenizerNeed {
  std::string option;
  std::string what, instead;  ///< "stop strings need", "give stop_token_ids"
};
std::optional<TokenizerNeed> tokenizer_need(const SamplingParams& sampling);

/// A token id outside of the vocabulary, if an option names one.
Contradiction outside_vocabulary(const SamplingParams& sampling, int64_t vocab_size);

}  // namespace moerun
