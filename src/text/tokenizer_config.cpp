#include "text/tokenizer_config.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <map>
#include <nlohmann/json.hpp>
#include <unordered_map>

#include "base/json_file.h"
#include "moerun/error.h"

namespace moerun {
namespace {

using nlohmann::json;

constexpr const char* kNamedTokens[] = {"bos_token", "eos_token", "unk_token", "sep_token",
                                        "pad_token", "cls_token", "mask_token"};

class Reader {
 public:
  Reader(const std::string& config_path, const std::string& tokenizer_path, TokenizerFile& file)
      : config_path_(config_path),
        tokenizer_path_(tokenizer_path),
        file_(file),
        next_id_(static_cast<int32_t>(file.vocab.size())) {
    for (size_t i = 0; i < file.added_tokens.size(); ++i) {
      index_.emplace(file.added_tokens[i].content, i);
      next_id_ = std::max(next_id_, file.added_tokens[i].id + 1);
    }
  }

  std::vector<std::string> read(const json& config) {
    for (const auto& [id, entry] : decoder_entries(config)) take_decoder_entry(id, entry);
    for (const char* key : kNamedTokens)
      if (const auto it = config.find(key); it != config.end()) take_named(*it, key);
    for (const char* key :
         {"additional_special_tokens", "extra_special_tokens", "model_specific_special_tokens"})
      if (const auto it = config.find(key); it != config.end() && it->is_structured())
        for (const json& token : *it) take_named(token, key);
    return std::move(notes_);
  }

 private:
  [[noreturn]] void fail(const std::string& what) const {
    throw BadInput(fmt::format("{}: {}", config_path_, what));
  }

  AddedToken* known(const std::string& content) {
    const auto it = index_.find(content);
    return it == index_.end() ? nullptr : &file_.added_tokens[it->second];
  }

  /// The id that Hugging Face's library gives to one more added token: the vocabulary's, or the next free
  /// one.
  int32_t id_of_next(const std::string& content) const {
    const auto it = file_.vocab.find(content);
    return it != file_.vocab.end() ? it->second : next_id_;
  }

  /// By id, which is the order in which transformers adds them.
  std::map<int32_t, json> decoder_entries(const json& config) const {
    std::map<int32_t, json> entries;
    const auto it = config.find("added_tokens_decoder");
    if (it == config.end() || it->is_null()) return entries;
    if (!it->is_object()) fail("added_tokens_decoder is no object");
    for (const auto& [key, entry] : it->items()) {
      int32_t id = -1;
      const auto [end, error] = std::from_chars(key.data(), key.data() + key.size(), id);
      if (error != std::errc() || end != key.data() + key.size() || id < 0 ||
          id > TokenizerLimits::kMaxTokenId)
        fail(fmt::format("added_tokens_decoder has '{}' for an id", key.substr(0, 40)));
      entries.emplace(id, entry);
    }
    return entries;
  }

  /// {"content", flags} or, `special`, the content alone.
  AddedToken read_token(const json& entry, const std::string& where, bool special) const {
    AddedToken token{.special = special};
    if (entry.is_string()) {
      token.content = entry;
    } else {
      if (!entry.is_object() || !entry.value("content", json()).is_string())
        fail(fmt::format("{} has an entry without content", where));
      token.content = entry["content"];
      const auto flag = [&](const char* key, bool otherwise) {
        const json value = entry.value(key, json(otherwise));
        if (!value.is_boolean())
          fail(fmt::format("{}: {} of '{}' is not true or false", where, key, token.content));
        return value.get<bool>();
      };
      token.special = flag("special", special);
      token.single_word = flag("single_word", false);
      token.lstrip = flag("lstrip", false);
      token.rstrip = flag("rstrip", false);
      token.normalized = flag("normalized", !token.special);
    }
    if (token.content.empty() || token.content.size() > TokenizerLimits::kAddedTokenBytes)
      fail(fmt::format("{} has a token of {} bytes; 1 to {} are read", where, token.content.size(),
                       TokenizerLimits::kAddedTokenBytes));
    return token;
  }

  void take_decoder_entry(int32_t id, const json& entry) {
    const AddedToken token = read_token(entry, "added_tokens_decoder", false);
    AddedToken* old = known(token.content);
    const int32_t own_id = old != nullptr ? old->id : id_of_next(token.content);
    if (own_id != id)
      fail(fmt::format("added_tokens_decoder gives '{}' the id {}, and by {} it is {}", token.content, id,
                       tokenizer_path_, own_id));
    if (old == nullptr) return add(token, "added_tokens_decoder");
    const AddedToken before = *old;
    *old = token;
    old->id = id;
    old->special = before.special || token.special;
    std::vector<std::string> changes;
    for (const auto& [name, flag] :
         {std::pair<const char*, bool AddedToken::*>{"single_word", &AddedToken::single_word},
          {"lstrip", &AddedToken::lstrip},
          {"rstrip", &AddedToken::rstrip},
          {"normalized", &AddedToken::normalized},
          {"special", &AddedToken::special}})
      if (before.*flag != old->*flag) changes.push_back(fmt::format("{} {}", name, old->*flag));
    if (!changes.empty())
      notes_.push_back(
          fmt::format("{}: the token '{}' has {}, otherwise than in {}: taken, as transformers does",
                      config_path_, token.content, fmt::join(changes, " and "), tokenizer_path_));
  }

  void take_named(const json& value, const std::string& key) {
    if (value.is_null() || value == "") return;
    const AddedToken token = read_token(value, key, true);
    if (known(token.content) == nullptr) add(token, key);
  }

  void index(const AddedToken& token) {
    index_.emplace(token.content, file_.added_tokens.size());
    next_id_ = std::max(next_id_, token.id + 1);
  }

  void add(AddedToken token, const std::string& key) {
    token.id = id_of_next(token.content);
    if (token.id > TokenizerLimits::kMaxTokenId || file_.added_tokens.size() == TokenizerLimits::kAddedTokens)
      fail(fmt::format("{} has too many tokens", key));
    notes_.push_back(fmt::format(
        "{}: {} has '{}', which is no added token of {}: taken as the token {}, as transformers does",
        config_path_, key, token.content, tokenizer_path_, token.id));
    index(token);
    file_.added_tokens.push_back(std::move(token));
  }

  const std::string& config_path_;
  const std::string& tokenizer_path_;
  TokenizerFile& file_;
  std::unordered_map<std::string, size_t> index_;  // of file_.added_tokens, by content
  int32_t next_id_ = 0;
  std::vector<std::string> notes_;
};

}  // namespace

std::vector<std::string> apply_tokenizer_config(const std::string& config_path,
                                                const std::string& tokenizer_path, TokenizerFile& file) {
  const JsonLimits limits;
  const json config = parse_json_object(read_text_file(config_path, limits.bytes), config_path, limits);
  return Reader(config_path, tokenizer_path, file).read(config);
}

}  // namespace moerun
