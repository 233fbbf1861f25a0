#pragma once
#include <cstdint>
#include <string>

#include "text/tokenizer.h"

namespace moerun {

/// Turns the ids of one growing answer into text, one by one, for stop strings. What feed() returns can no
/// longer change: a character whose bytes are not all there yet is held back. All that feed() and finish()
/// returned, in order, is `decode` of all ids.
class Detokenizer {
 public:
  /// `tokenizer` must outlive it.
  Detokenizer(const Tokenizer& tokenizer, bool skip_special_tokens)
      : tokenizer_(&tokenizer), skip_special_tokens_(skip_special_tokens) {}

  /// The text that `id` completes; often empty inside a character of several tokens.
  std::string feed(int32_t id);
  /// The end: what was held back, as U+FFFD; then as new.
  std::string finish();

 private:
  const Tokenizer* tokenizer_;
  bool skip_special_tokens_;
  std::string held_;  // the first bytes of a character, at most 3
};

}  // namespace moerun
