#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "text/added_tokens.h"
#include "text/bpe.h"

namespace moerun {

/// A Hugging Face tokenizer.json that this program understands whole: byte-level BPE.
struct TokenizerFile {
  std::unordered_map<std::string, int32_t>
      vocab;                                ///< of the model, in byte-level spelling; not the added tokens
  std::vector<Merge> merges;                ///< by rank
  bool ignore_merges = false;               ///< a piece that is a token is that token
  bool nfc = false;                         ///< text is brought to Normalization Form C
  std::vector<std::string> split_patterns;  ///< Oniguruma regular expressions, applied one after the other
  std::vector<AddedToken> added_tokens;
};

/// Reads the format of Hugging Face `tokenizers` (1.0). Every component, key and value that would change the
/// result and is not understood is an Error that names it; `name` is how messages call the file.
TokenizerFile parse_tokenizer_file(std::string_view json, const std::string& name);

}  // namespace moerun
