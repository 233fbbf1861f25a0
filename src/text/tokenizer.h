#pragma once
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "text/added_tokens.h"
#include "text/bpe.h"
#include "text/tokenizer_file.h"

namespace moerun {

/// Byte-pair encoding with the ids and texts of Hugging Face `tokenizers`, from a checkpoint's
/// tokenizer.json. Text → added tokens cut out → normalizer → pre-tokenizer → merges. `encode` belongs to one
/// thread at a time; the const functions may run beside each other.
class Tokenizer {
 public:
  /// Reads MODEL_DIR/tokenizer.json, and of tokenizer_config.json the tokens that transformers adds by it.
  /// Throws BadInput when there is none, or naming what is not understood or contradicts itself.
  static Tokenizer load(const std::string& model_dir);
  /// `name` is how error messages call the file.
  static Tokenizer from_json(std::string_view json, const std::string& name);

  /// The ids of `text`; special tokens written in it are recognised, none are put around it (what a chat
  /// template made has its own). Throws BadInput when `text` is not valid UTF-8, or has a character for which
  /// there is no token.
  std::vector<int32_t> encode(std::string_view text);
  /// The same with the special tokens that the tokenizer puts around a text (`add_special_tokens=True`): for
  /// prompts.
  std::vector<int32_t> encode_prompt(std::string_view text);

  /// The text of `ids`, bytes that are no UTF-8 as U+FFFD. An id that is no token has no text: a model's
  /// vocabulary is often padded beyond its tokenizer's. Results' `text` skips special tokens.
  std::string decode(std::span<const int32_t> ids, bool skip_special_tokens) const;

  /// Ids lie in [0, vocab_size); added tokens included.
  int32_t vocab_size() const { return static_cast<int32_t>(tokens_.size()); }
  /// The id of a token by its content ("<|im_end|>"), or by its spelling in the vocabulary ("Ġthe").
  std::optional<int32_t> token_id(std::string_view content) const;
  bool is_token(int32_t id) const { return id >= 0 && id < vocab_size(); }
  /// The bytes that a token adds to a text in its middle; empty when the id is no token.
  std::string_view token_bytes(int32_t id) const {
    if (!is_token(id)) return {};
    const Token& token = tokens_[index(id)];
    return token.is_byte ? std::string_view(&token.byte, 1) : std::string_view(token.text);
  }
  /// A token's text by the decoder's substitutions, for Detokenizer; "<0xE2>" where it stands for a byte.
  std::string_view token_text(int32_t id, bool first) const {
    return first && !first_texts_.empty() ? first_texts_[index(id)] : tokens_[index(id)].text;
  }
  const DecodePlan& decode_plan() const { return decode_plan_; }
  bool is_special(int32_t id) const { return is_token(id) && tokens_[index(id)].special; }
  /// Whether `text` has the whole text of a special token in it.
  bool names_special_token(std::string_view text) const;
  /// What tokenizer_config.json changed, a sentence each.
  const std::vector<std::string>& notes() const { return notes_; }
  /// SHA-256 (hex) of the file, and of the notes where there are any.
  const std::string& checksum() const { return checksum_; }

 private:
  struct Token {
    std::string text;
    bool special = false;
    bool is_byte = false;  // of byte fallback: stands for `byte`
    char byte = 0;
  };

  Tokenizer(TokenizerFile file, const std::string& name);

  void read_vocab(TokenizerFile& file, const std::string& name);
  void add_tokens(const std::vector<AddedToken>& added, const std::string& name);
  void set_text(int32_t id, std::string_view spelling);
  void encode_ordinary(std::string_view text, bool at_start, std::vector<int32_t>& ids);
  static size_t index(int32_t id) { return static_cast<size_t>(id); }

  DecodePlan decode_plan_;
  std::vector<Token> tokens_;                       // [vocab_size]
  std::vector<std::string> first_texts_;            // [vocab_size] where a first token differs, else empty
  std::unordered_map<std::string, int32_t> vocab_;  // spelling or content → id
  std::unique_ptr<Normalizer> normalizer_;
  AddedTokenSplitter verbatim_, normalized_;  // looked for before and after normalization
  std::unique_ptr<Pretokenizer> pretokenizer_;
  Bpe bpe_;
  AroundText around_;
  PieceList pieces_;
  std::vector<int32_t> special_ids_;
  std::vector<std::string> notes_;
  std::string checksum_;
};

}  // namespace moerun
