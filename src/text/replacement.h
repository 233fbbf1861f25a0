#pragma once
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "text/component.h"
#include "text/split_regex.h"

namespace moerun {

/// What a text may become by a tokenizer's replacements, which can each make it longer.
inline constexpr size_t kMaxReplacedBytes = size_t{256} << 20;
/// Throws BadInput where `bytes` are more.
void check_replaced_bytes(size_t bytes);

/// A `pattern` of a tokenizer.json: {"String": ...}, which stands for itself, or {"Regex": ...} of Oniguruma.
/// Not for use by two threads at once.
class TextPattern {
 public:
  /// Throws BadInput when the component's `pattern` is neither.
  explicit TextPattern(const Component& component);
  explicit TextPattern(SplitRegex regex) : regex_(std::move(regex)) {}

  /// Replaces `matches` by the matches in valid UTF-8: bytes [begin, end), none empty, from left to right.
  void find_all(std::string_view text, std::vector<std::pair<size_t, size_t>>& matches);

 private:
  std::string literal_;
  std::optional<SplitRegex> regex_;
};

/// `Replace`, a normalizer and a decoder: every match becomes `content`, which is no template.
class Replacement {
 public:
  Replacement(TextPattern pattern, std::string content)
      : pattern_(std::move(pattern)), content_(std::move(content)) {}
  std::string apply(std::string_view text);

 private:
  TextPattern pattern_;
  std::string content_;
  std::vector<std::pair<size_t, size_t>> matches_;
};

Replacement read_replacement(const Component& component);

}  // namespace moerun
