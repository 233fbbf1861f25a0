#pragma once
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "text/added_tokens.h"
#include "text/bpe.h"
#include "text/decode_plan.h"
#include "text/normalizer.h"
#include "text/post_processor.h"
#include "text/pretokenizer.h"

namespace moerun {

/// A Hugging Face tokenizer.json that this program understands whole: byte-pair encoding, of bytes or of
/// characters.
struct TokenizerFile {
  std::unordered_map<std::string, int32_t>
      vocab;                   ///< of the model, as it spells tokens; not the added tokens
  std::vector<Merge> merges;   ///< by rank
  bool ignore_merges = false;  ///< a piece that is a token is that token
  bool byte_fallback = false;  ///< a character that is no token is its bytes' "<0xE2>"
  bool fuse_unknown = false;   ///< neighbours that are no tokens are one unknown token
  std::optional<std::string> unknown_token;
  std::unique_ptr<Normalizer> normalizer;
  std::unique_ptr<Pretokenizer> pretokenizer;
  AroundText around;
  DecodePlan decode_plan;
  std::vector<AddedToken> added_tokens;
};

/// The most that is read of a tokenizer.json, and of what is in one.
struct TokenizerLimits {
  static constexpr uint64_t kFileBytes = 256u << 20;
  static constexpr int kNesting = 64;
  static constexpr int64_t kMaxTokenId = (1 << 24) - 1;
  static constexpr size_t kIdsBeyondTokens =
      1 << 20;  ///< ids index tables: a wild one must not become an allocation
  static constexpr size_t kAddedTokens = 1 << 20;
  static constexpr size_t kAddedTokenBytes = 1024;
};

/// Reads the format of Hugging Face `tokenizers` (1.0). Every component, key and value that would change the
/// result and is not understood is a BadInput that names it; `name` is how messages call the file.
TokenizerFile parse_tokenizer_file(std::string_view json, const std::string& name);

}  // namespace moerun
