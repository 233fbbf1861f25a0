#pragma once
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "text/added_tokens.h"
#include "text/bpe.h"
#include "text/pretokenizer.h"
#include "text/tokenizer_file.h"

namespace moerun {

/// Byte-level BPE with the ids and texts of Hugging Face `tokenizers`, from a checkpoint's tokenizer.json.
/// Text → added tokens cut out → NFC → split pattern → merges. `encode` belongs to one thread at a time; the
/// const functions may run beside each other.
class Tokenizer {
 public:
  /// Reads MODEL_DIR/tokenizer.json. Throws BadInput when there is none, Error when it is not understood.
  static Tokenizer load(const std::string& model_dir);
  /// `name` is how error messages call the file.
  static Tokenizer from_json(std::string_view json, const std::string& name);

  /// The ids of `text`; special tokens written in it are recognised, none are put around it. Throws BadInput
  /// when `text` is not valid UTF-8.
  std::vector<int32_t> encode(std::string_view text);

  /// The text of `ids`, bytes that are no UTF-8 as U+FFFD. An id that is no token has no text: a model's
  /// vocabulary is often padded beyond its tokenizer's. Results' `text` skips special tokens.
  std::string decode(std::span<const int32_t> ids, bool skip_special_tokens) const;

  /// Ids lie in [0, vocab_size); added tokens included.
  int32_t vocab_size() const { return static_cast<int32_t>(tokens_.size()); }
  /// The id of a token by its content ("<|im_end|>"), or by its spelling in the vocabulary ("Ġthe").
  std::optional<int32_t> token_id(std::string_view content) const;
  /// The bytes that a token adds to the text; empty when the id is no token.
  std::string_view token_bytes(int32_t id) const {
    return is_token(id) ? tokens_[index(id)].bytes : std::string_view();
  }
  bool is_special(int32_t id) const { return is_token(id) && tokens_[index(id)].special; }
  /// Whether `text` has the whole text of a special token in it.
  bool names_special_token(std::string_view text) const;
  /// SHA-256 (hex) of the file.
  const std::string& checksum() const { return checksum_; }

 private:
  struct Token {
    std::string bytes;
    bool special = false;
  };

  Tokenizer(TokenizerFile file, const std::string& name, std::string checksum);

  void add_tokens(const std::vector<AddedToken>& added, const std::string& name);
  static Bpe make_bpe(const TokenizerFile& file, const std::string& name);
  void encode_ordinary(std::string_view text, std::vector<int32_t>& ids);
  bool is_token(int32_t id) const { return id >= 0 && id < vocab_size(); }
  static size_t index(int32_t id) { return static_cast<size_t>(id); }

  std::vector<Token> tokens_;                       // [vocab_size]
  std::unordered_map<std::string, int32_t> vocab_;  // spelling or content → id
  bool nfc_, ignore_merges_;
  AddedTokenSplitter verbatim_, normalized_;  // looked for before and after normalization
  Pretokenizer pretokenizer_;
  Bpe bpe_;
  std::vector<int32_t> special_ids_;
  std::string checksum_;
};

}  // namespace moerun
