#include "text/tokenizer.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>

#include "base/json_file.h"
#include "moerun/error.h"
#include "text/byte_level.h"
#include "text/checksum.h"
#include "text/detokenizer.h"
#include "text/tokenizer_config.h"
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
        if (normalized) tokens.back().content = file.normalizer->apply(token.content);
      }
  return tokens;
}

/// No UTF-8 has these bytes, so a vocabulary may lack them.
bool is_never_in_utf8(size_t byte) { return byte == 0xC0 || byte == 0xC1 || byte >= 0xF5; }

BpeAlphabet make_alphabet(const TokenizerFile& file, const std::string& name) {
  BpeAlphabet alphabet{.byte_level = file.pretokenizer->byte_level(), .fuse_unknown = file.fuse_unknown};
  for (size_t byte = 0; byte < alphabet.byte_ids.size(); ++byte) {
    const std::string spelling = alphabet.byte_level
                                     ? byte_level_spelling(std::string(1, static_cast<char>(byte)))
                                     : fmt::format("<0x{:02X}>", byte);
    const auto it = file.vocab.find(spelling);
    const bool known = it != file.vocab.end();
    alphabet.byte_ids[byte] = known && (alphabet.byte_level || file.byte_fallback) ? it->second : -1;
    if (alphabet.byte_level && !known && !is_never_in_utf8(byte))
      throw BadInput(
          fmt::format("{} has no token for the byte 0x{:02X} ('{}'): text with it could not be encoded", name,
                      byte, spelling));
  }
  if (alphabet.byte_level) return alphabet;
  for (const auto& [token, id] : file.vocab)
    if (!token.empty() && utf8_length(static_cast<uint8_t>(token[0])) == token.size())
      alphabet.character_ids.emplace(code_point_at(token, 0), id);
  if (!file.unknown_token) return alphabet;
  const auto unknown = file.vocab.find(*file.unknown_token);
  if (unknown == file.vocab.end())
    throw BadInput(
        fmt::format("{} has the unk_token '{}', which is not in its vocabulary", name, *file.unknown_token));
  alphabet.unknown_id = unknown->second;
  return alphabet;
}

/// Pieces, as they are before the byte-level alphabet, that are one token.
Bpe::WholePieces whole_pieces(const TokenizerFile& file) {
  Bpe::WholePieces whole;
  if (!file.ignore_merges) return whole;
  for (const auto& [token, id] : file.vocab) {
    if (!file.pretokenizer->byte_level())
      whole.emplace(token, id);
    else if (std::string bytes = byte_level_bytes(token); byte_level_spelling(bytes) == token)
      whole.emplace(std::move(bytes), id);
  }
  return whole;
}

}  // namespace

Tokenizer Tokenizer::load(const std::string& model_dir) {
  const std::string path = model_dir + "/tokenizer.json", config = model_dir + "/tokenizer_config.json";
  if (!std::filesystem::exists(path))
    throw BadInput(fmt::format("{} cannot be opened: text needs the checkpoint's tokenizer", path));
  const std::string json = read_text_file(path, TokenizerLimits::kFileBytes);
  TokenizerFile file = parse_tokenizer_file(json, path);
  std::vector<std::string> notes;
  if (std::filesystem::exists(config)) notes = apply_tokenizer_config(config, path, file);
  Tokenizer tokenizer(std::move(file), path);
  tokenizer.checksum_ = sha256_hex(notes.empty() ? json : json + fmt::format("{}", fmt::join(notes, "\n")));
  tokenizer.notes_ = std::move(notes);
  return tokenizer;
}

Tokenizer Tokenizer::from_json(std::string_view json, const std::string& name) {
  Tokenizer tokenizer(parse_tokenizer_file(json, name), name);
  tokenizer.checksum_ = sha256_hex(json);
  return tokenizer;
}

Tokenizer::Tokenizer(TokenizerFile file, const std::string& name)
    : decode_plan_(std::move(file.decode_plan)),
      verbatim_(tokens_of_stage(file, false)),
      normalized_(tokens_of_stage(file, true)),
      bpe_(make_alphabet(file, name), file.merges, whole_pieces(file)),
      around_(std::move(file.around)) {
  normalizer_ = std::move(file.normalizer);
  pretokenizer_ = std::move(file.pretokenizer);
  read_vocab(file, name);
  add_tokens(file.added_tokens, name);
  for (const std::vector<int32_t>* ids : {&around_.before, &around_.after})
    for (const int32_t id : *ids)
      if (!is_token(id))
        throw BadInput(fmt::format("{}: post_processor adds the token {}, which there is not", name, id));
}

void Tokenizer::read_vocab(TokenizerFile& file, const std::string& name) {
  vocab_ = std::move(file.vocab);
  int32_t max_id = 0;
  for (const auto& [token, id] : vocab_) max_id = std::max(max_id, id);
  for (const AddedToken& token : file.added_tokens) max_id = std::max(max_id, token.id);
  if (index(max_id) > vocab_.size() + file.added_tokens.size() + TokenizerLimits::kIdsBeyondTokens)
    throw BadInput(fmt::format("{} has the id {} and {} tokens: at most {} ids may be without", name, max_id,
                               vocab_.size(), TokenizerLimits::kIdsBeyondTokens));
  tokens_.resize(index(max_id) + 1);
  if (decode_plan_.first_differs()) first_texts_.resize(tokens_.size());
  std::vector<bool> given(tokens_.size());
  for (const auto& [token, id] : vocab_) {
    if (given[index(id)])
      throw BadInput(fmt::format("{} gives the id {} to two tokens, one of them '{}'", name, id, token));
    given[index(id)] = true;
    set_text(id, token);
  }
}

void Tokenizer::set_text(int32_t id, std::string_view spelling) {
  Token& token = tokens_[index(id)];
  token.text = decode_plan_.text_of(spelling, false);
  const auto byte = decode_plan_.fallback_byte(token.text);
  token.is_byte = byte.has_value();
  token.byte = static_cast<char>(byte.value_or(0));
  if (!first_texts_.empty()) first_texts_[index(id)] = decode_plan_.text_of(spelling, true);
}

// Hugging Face gives an added token the vocabulary's id where it has one, else the next free one, whatever
// the file says. A file where that makes a difference is refused.
void Tokenizer::add_tokens(const std::vector<AddedToken>& added, const std::string& name) {
  auto next_id = static_cast<int32_t>(vocab_.size());
  for (const AddedToken& token : added) {
    const auto known = vocab_.find(token.content);
    const int32_t id = known != vocab_.end() ? known->second : next_id;
    if (id != token.id)
      throw BadInput(
          fmt::format("{} gives the added token '{}' the id {}, where Hugging Face's library gives {}", name,
                      token.content, token.id, id));
    next_id = std::max(next_id, id + 1);
    vocab_.emplace(token.content, id);
    // Decoded as it was looked for.
    set_text(id, token.normalized ? normalizer_->apply(token.content) : token.content);
    if (token.special && !tokens_[index(id)].special) special_ids_.push_back(id);
    tokens_[index(id)].special |= token.special;
  }
}

std::vector<int32_t> Tokenizer::encode_prompt(std::string_view text) {
  std::vector<int32_t> ids = encode(text);
  ids.insert(ids.begin(), around_.before.begin(), around_.before.end());
  ids.insert(ids.end(), around_.after.begin(), around_.after.end());
  return ids;
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
    const std::string normalized = normalizer_->apply(std::string(part.text));
    normalized_parts.clear();
    normalized_.split(normalized, normalized_parts);
    for (const auto& normalized_part : normalized_parts) {
      if (normalized_part.id >= 0)
        ids.push_back(normalized_part.id);
      else
        encode_ordinary(normalized_part.text,
                        part.text.data() == text.data() && normalized_part.text.data() == normalized.data(),
                        ids);
    }
  }
  return ids;
}

void Tokenizer::encode_ordinary(std::string_view text, bool at_start, std::vector<int32_t>& ids) {
  pretokenizer_->split(text, at_start, pieces_);
  for (const PieceList::Piece& piece : pieces_.pieces) bpe_.encode(piece.text, ids);
}

std::string Tokenizer::decode(std::span<const int32_t> ids, bool skip_special_tokens) const {
  std::string text;
  if (!decode_plan_.byte_level) {
    Detokenizer detokenizer(*this, skip_special_tokens);
    for (const int32_t id : ids) text += detokenizer.feed(id);
    return text + detokenizer.finish();
  }
  std::string bytes;
  for (int32_t id : ids)
    if (!(skip_special_tokens && is_special(id))) bytes += token_bytes(id);
  const size_t read = append_lossy_utf8(bytes, text);
  if (read < bytes.size()) text += kReplacementCharacter;
  return text;
}

bool Tokenizer::names_special_token(std::string_view text) const {
  return std::any_of(special_ids_.begin(), special_ids_.end(), [&](int32_t id) {
    const std::string& own = tokens_[index(id)].text;
    return !own.empty() && text.find(own) != std::string_view::npos;
  });
}

std::optional<int32_t> Tokenizer::token_id(std::string_view content) const {
  const auto it = vocab_.find(std::string(content));
  if (it == vocab_.end()) return std::nullopt;
  return it->second;
}

}  // namespace moerun
