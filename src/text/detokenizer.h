#pragma once
#include <cstdint>
#include <string>

#include "text/tokenizer.h"

namespace moerun {

/// Turns the ids of one growing answer into text, one by one, for stop strings. What feed() returns can no
/// longer change: a character whose bytes are not all there yet is held back, and with byte fallback all of a
/// run of bytes, whose text a later byte may spoil. All that feed() and finish() returned, in order, is
/// `decode` of all ids.
class Detokenizer {
 public:
  /// `tokenizer` must outlive it.
  Detokenizer(const Tokenizer& tokenizer, bool skip_special_tokens);

  /// The text that `id` completes; often empty inside a character of several tokens.
  std::string feed(int32_t id);
  /// What is held back, as far as it is whole characters: the text that follows if no byte spoils it.
  std::string provisional() const;
  /// The end: what was held back, what is no character as U+FFFD; then as new.
  std::string finish();

 private:
  std::string run_text() const;
  void strip(std::string& text, int64_t& left) const;

  const Tokenizer* tokenizer_;
  bool skip_special_tokens_;
  bool first_ = true;   // no token has come
  int64_t strip_left_;  // characters to leave out while the text has not begun
  std::string held_;    // byte-level: the first bytes of a character, at most 3;
                        // else a run of bytes
};

}  // namespace moerun
