#pragma once
#include <vector>

#include "job/fields.h"
#include "moerun/sampling.h"

namespace moerun {

/// What a row or a job may say of single tokens: how much, each is looked at in every step.
struct TokenRuleLimits {
  static constexpr size_t kBiases = 65536, kAllowed = 1 << 20;
  static constexpr size_t kWords = 4096, kWordBytes = 1024;  ///< `bad_words`: how many, and of each
};

/// The sampling options that say which tokens can be chosen; part of sampling_fields().
std::vector<Field<SamplingParams>> token_rule_fields();

}  // namespace moerun
