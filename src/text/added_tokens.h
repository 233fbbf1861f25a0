#pragma once
#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace moerun {

/// An entry of `added_tokens` in tokenizer.json: a string that is one token wherever it stands in the text.
struct AddedToken {
  int32_t id = -1;
  std::string content;
  bool single_word = false;  ///< not inside a word
  bool lstrip = false;       ///< takes the white space before it
  bool rstrip = false;       ///< takes the white space after it
  bool normalized = false;   ///< looked for after normalization, and itself normalized
  bool special = false;      ///< left out of decoded text
};

/// Finds added tokens in text: leftmost, then longest (Hugging Face `AddedVocabulary`).
class AddedTokenSplitter {
 public:
  struct Part {
    std::string_view text;
    int32_t id = -1;  ///< of the added token; -1: ordinary text
  };

  /// Of tokens with equal content the first counts.
  explicit AddedTokenSplitter(std::vector<AddedToken> tokens);

  /// Appends the parts of valid UTF-8 in order. Takes time in proportion to the text and the longest token,
  /// however many there are.
  void split(std::string_view text, std::vector<Part>& parts) const;

 private:
  const AddedToken* match_at(std::string_view text, size_t pos) const;

  static constexpr uint32_t kNone = UINT32_MAX;

  std::vector<AddedToken> tokens_;
  // A trie of the contents: node 0 is the root, an edge is node << 8 | byte.
  std::unordered_map<uint64_t, uint32_t> edges_;
  std::vector<uint32_t> token_at_;        // [node] the index in tokens_ of what ends there, or kNone
  std::array<uint32_t, 256> root_edges_;  // [byte] the node, or kNone: most bytes begin no token
};

}  // namespace moerun
