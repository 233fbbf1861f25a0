#include "text/tokenizer.h"

#include <fmt/format.h>

#include <algorithm>
#include <fstream>

#include "moerun/error.h"
#include "text/byte_level.h"
#include "text/checksum.h"
#include "text/nfc.h"
#include "text/unicode.h"

namespace moerun {
namespace {

/// Those looked for at one stage, special ones first: of equal contents the first counts.
std::vector<AddedToken> tokens_of_stage(const TokenizerFile& file, bool normalized) {
  std::vector<AddedToken> tokens;
  for (bool special : {true, false})
    for (const AddedToken& token : file.added_tokens)
      if (token.special == special && token.normalized == normalized) {
        tokens.push_back(token);
        if (normalized && file.nfc) tokens.back().content = nfc(token.content);
      }
  return tokens;
}

}  // namespace

Tokenizer Tokenizer::load(const std::string& model_dir) {
  const std::string path = model_dir + "/tokenizer.json";
  std::ifstream file(path, std::ios::binary);
  if (!file) throw BadInput(fmt::format("{} cannot be opened: text needs the checkpoint's tokenizer", path));
  std::string json;
  file.seekg(0, std::ios::end);
  json.resize(static_cast<size_t>(std::max<std::streamoff>(file.tellg(), 0)));
  file.seekg(0);
  if (!file.read(json.data(), static_cast<std::streamsize>(json.size())))
    throw Error(fmt::format("{} cannot be read", path));
  return from_json(json, path);
}

Tokenizer Tokenizer::from_json(std::string_view json, const std::string& name) {
  return Tokenizer(parse_tokenizer_file(json, name), name, sha256_hex(json));
}

Tokenizer::Tokenizer(TokenizerFile file, const std::string& name, std::string checksum)
    : nfc_(file.nfc),
      ignore_merges_(file.ignore_merges),
      verbatim_(tokens_of_stage(file, false)),
      normalized_(tokens_of_stage(file, true)),
      pretokenizer_(file.split_patterns),
      bpe_(make_bpe(file, name)),
      checksum_(std::move(checksum)) {
  vocab_ = std::move(file.vocab);
  int32_t max_id = 0;
  for (const auto& [token, id] : vocab_) max_id = std::max(max_id, id);
  tokens_.resize(index(max_id) + 1);
  for (const auto& [token, id] : vocab_) {
    std::string& bytes = tokens_[index(id)].bytes;
    if (!bytes.empty())
      throw Error(fmt::format("{} gives the id {} to two tokens, one of them '{}'", name, id, token));
    bytes = byte_level_bytes(token);
  }
  add_tokens(file.added_tokens, name);
}

// Hugging Face gives an added token the vocabulary's id where it has one, else the next free one, whatever
// the file says. A file where that makes a difference is refused.
void Tokenizer::add_tokens(const std::vector<AddedToken>& added, const std::string& name) {
  auto next_id = static_cast<int32_t>(vocab_.size());
  for (const AddedToken& token : added) {
    const auto known = vocab_.find(token.content);
    const int32_t id = known != vocab_.end() ? known->second : next_id;
    if (id != token.id)
      throw Error(
          fmt::format("{} gives the added token '{}' the id {}, where Hugging Face's library gives {}", name,
                      token.content, token.id, id));
    next_id = std::max(next_id, id + 1);
    vocab_.emplace(token.content, id);
    if (!is_token(id)) tokens_.resize(index(id) + 1);
    // Decoded as it was looked for.
    tokens_[index(id)].bytes =
        byte_level_bytes(token.normalized && nfc_ ? nfc(token.content) : token.content);
    if (token.special && !tokens_[index(id)].special) special_ids_.push_back(id);
    tokens_[index(id)].special |= token.special;
  }
}

Bpe Tokenizer::make_bpe(const TokenizerFile& file, const std::string& name) {
  std::array<int32_t, 256> byte_ids;
  for (size_t byte = 0; byte < byte_ids.size(); ++byte) {
    const std::string spelling = byte_level_spelling(std::string(1, static_cast<char>(byte)));
    const auto it = file.vocab.find(spelling);
    if (it == file.vocab.end())
      throw Error(
          fmt::format("{} has no token for the byte 0x{:02X} ('{}'): text with it could not be encoded", name,
                      byte, spelling));
    byte_ids[byte] = it->second;
  }
  return Bpe(byte_ids, file.merges);
}

std::vector<int32_t> Tokenizer::encode(std::string_view text) {
  if (const auto pos = find_invalid_utf8(text))
    throw BadInput(fmt::format("the text is not valid UTF-8 at byte {} (0x{:02X})", *pos,
                               static_cast<uint8_t>(text[*pos])));
  if (text.size() > INT32_MAX)
    throw BadInput(fmt::format("the text has {} bytes; 2 GiB is the most", text.size()));
  std::vector<int32_t> ids;
  std::vector<AddedTokenSplitter::Part> parts, normalized_parts;
  verbatim_.split(text, parts);
  for (const auto& part : parts) {
    if (part.id >= 0) {
      ids.push_back(part.id);
      continue;
    }
    const std::string normalized = nfc_ ? nfc(part.text) : std::string(part.text);
    normalized_parts.clear();
    normalized_.split(normalized, normalized_parts);
    for (const auto& normalized_part : normalized_parts) {
      if (normalized_part.id >= 0)
        ids.push_back(normalized_part.id);
      else
        encode_ordinary(normalized_part.text, ids);
    }
  }
  return ids;
}

void Tokenizer::encode_ordinary(std::string_view text, std::vector<int32_t>& ids) {
  std::vector<std::string_view> pieces;
  pretokenizer_.split(text, pieces);
  for (std::string_view piece : pieces) {
    if (ignore_merges_) {
      if (const auto whole = vocab_.find(byte_level_spelling(piece)); whole != vocab_.end()) {
        ids.push_back(whole->second);
        continue;
      }
    }
    bpe_.encode(piece, ids);
  }
}

std::string Tokenizer::decode(std::span<const int32_t> ids, bool skip_special_tokens) const {
  std::string bytes, text;
  for (int32_t id : ids)
    if (!(skip_special_tokens && is_special(id))) bytes += token_bytes(id);
  const size_t read = append_lossy_utf8(bytes, text);
  if (read < bytes.size()) text += kReplacementCharacter;
  return text;
}

bool Tokenizer::names_special_token(std::string_view text) const {
  return std::any_of(special_ids_.begin(), special_ids_.end(), [&](int32_t id) {
    return text.find(tokens_[index(id)].bytes) != std::string_view::npos;
  });
}

std::optional<int32_t> Tokenizer::token_id(std::string_view content) const {
  const auto it = vocab_.find(std::string(content));
  if (it == vocab_.end()) return std::nullopt;
  return it->second;
}

}  // namespace moerun
