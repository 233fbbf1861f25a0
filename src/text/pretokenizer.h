#pragma once
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "text/split_regex.h"

namespace moerun {

/// Cuts text into the pieces that BPE may not merge across: Hugging Face's `Split` with behavior `Isolated`,
/// one pattern after the other, each on the pieces of the one before. Not for use by two threads at once.
class Pretokenizer {
 public:
  /// `patterns` are Oniguruma regular expressions as written in tokenizer.json. Throws Error when one uses a
  /// construct whose meaning is not known to be the same in PCRE2.
  explicit Pretokenizer(const std::vector<std::string>& patterns);

  /// Appends the pieces of valid UTF-8; together they are `text`.
  void split(std::string_view text, std::vector<std::string_view>& pieces);

 private:
  void split_by(SplitRegex& pattern, std::string_view text, std::vector<std::string_view>& pieces);

  std::vector<SplitRegex> patterns_;
  std::vector<std::string_view> scratch_;
  std::vector<std::pair<size_t, size_t>> matches_;
};

}  // namespace moerun
