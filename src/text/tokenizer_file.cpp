#include "text/tokenizer_file.h"

#include <fmt/format.h>

#include <algorithm>
#include <initializer_list>
#include <nlohmann/json.hpp>
#include <optional>

#include "base/shortened.h"
#include "moerun/error.h"

namespace moerun {
namespace {

using nlohmann::json;

constexpr size_t kMaxShown = 200;

std::string shown(const json& value) {
  return shortened(value.dump(-1, ' ', false, json::error_handler_t::replace), kMaxShown);
}

class Parser {
 public:
  explicit Parser(const std::string& name) : name_(name) {}

  TokenizerFile parse(std::string_view text) {
    const json root = parse_json(text);
    if (!root.is_object()) fail("is not a JSON object");
    known_keys(root, "the file",
               {"version", "truncation", "padding", "added_tokens", "normalizer", "pre_tokenizer",
                "post_processor", "decoder", "model"});
    if (root.value("version", json("1.0")) != "1.0")
      fail(fmt::format("has version {}, not 1.0", shown(root["version"])));
    for (const char* key : {"truncation", "padding"})
      if (!member(root, key).is_null())
        fail(fmt::format("sets {}, which this program does not apply; set it to null", key));
    read_model(member(root, "model"));
    const auto component = [&](const char* key) { return Component(member(root, key), key, name_); };
    file_.normalizer = read_normalizer(component("normalizer"));
    file_.pretokenizer = std::make_unique<Pretokenizer>(component("pre_tokenizer"));
    file_.around = read_post_processor(component("post_processor"));
    file_.decode_plan = read_decoder(component("decoder"));
    read_added_tokens(member(root, "added_tokens"));
    return std::move(file_);
  }

 private:
  [[noreturn]] void fail(const std::string& what) const { throw BadInput(fmt::format("{} {}", name_, what)); }

  static const json& member(const json& object, const char* key) {
    static const json null;
    const auto it = object.find(key);
    return it == object.end() ? null : *it;
  }

  void known_keys(const json& object, const std::string& where,
                  std::initializer_list<std::string_view> keys) const {
    for (const auto& [key, value] : object.items())
      if (std::find(keys.begin(), keys.end(), key) == keys.end())
        fail(fmt::format("has the key '{}' in {}, which this program does not know", key, where));
  }

  std::string type_of(const json& component, const std::string& where) const {
    if (!component.is_object() || !member(component, "type").is_string())
      fail(fmt::format("has a {} without a type", where));
    return component["type"];
  }

  bool flag(const json& object, const char* key, bool otherwise, const std::string& where) const {
    const json& value = member(object, key);
    if (value.is_null()) return otherwise;
    if (!value.is_boolean()) fail(fmt::format("has {}.{} = {}, not true or false", where, key, shown(value)));
    return value;
  }

  // The vocabulary and the merges are 99% of the file: they go straight to where they are used, never into a
  // DOM.
  json parse_json(std::string_view text) {
    std::vector<std::string> path;  // [depth] the key that is open there
    bool in_vocab = false, in_merges = false;
    const auto filter = [&](int depth, json::parse_event_t event, json& value) {
      if (depth > TokenizerLimits::kNesting)
        fail(fmt::format("is nested more than {} deep", TokenizerLimits::kNesting));
      const auto d = static_cast<size_t>(depth);
      switch (event) {
        case json::parse_event_t::key:
          if (d <= 2) {
            path.resize(d + 1);
            path[d] = value.get_ref<const std::string&>();
            const bool in_model = d == 2 && path[1] == "model";
            in_vocab = in_model && path[2] == "vocab";
            in_merges = in_model && path[2] == "merges";
          } else if (in_vocab) {
            vocab_key_ = std::move(value.get_ref<std::string&>());
            return false;
          }
          return true;
        case json::parse_event_t::value:
          if (in_vocab && d == 3) return add_vocab(value), false;
          if (in_merges && d >= 3) return add_merge_part(value, d), false;
          return true;
        case json::parse_event_t::array_end:
          if (in_merges && d == 3) return end_merge_pair(), false;
          return true;
        default:
          return true;
      }
    };
    try {
      return json::parse(text, filter);
    } catch (const json::exception& e) {
      fail(fmt::format("is not valid JSON: {}", e.what()));
    }
  }

  void add_vocab(const json& id) {
    if (!id.is_number_integer() || id < 0 || id > TokenizerLimits::kMaxTokenId)
      fail(fmt::format("gives the token '{}' the id {}", vocab_key_, shown(id)));
    if (file_.vocab.empty()) file_.vocab.reserve(1 << 18);
    if (!file_.vocab.emplace(std::move(vocab_key_), id.get<int32_t>()).second)
      fail("names a token of its vocabulary twice");
  }

  // A merge is the string "a b" (depth 3), or, newer, the array ["a", "b"] (its strings at depth 4).
  void add_merge_part(json& part, size_t depth) {
    if (!part.is_string() || depth > 4)
      fail(fmt::format("has the merge {}, neither \"a b\" nor [\"a\", \"b\"]", shown(part)));
    std::string& text = part.get_ref<std::string&>();
    if (depth == 4) {
      merge_pair_.push_back(std::move(text));
      return;
    }
    if (text.starts_with("#version")) return;
    const size_t space = text.find(' ');
    if (space == std::string::npos || text.find(' ', space + 1) != std::string::npos)
      fail(fmt::format("has the merge '{}', not two tokens and a space between them", text));
    merges_.emplace_back(text.substr(0, space), text.substr(space + 1));
  }

  void end_merge_pair() {
    if (merge_pair_.size() != 2) fail(fmt::format("has a merge of {} tokens", merge_pair_.size()));
    merges_.emplace_back(std::move(merge_pair_[0]), std::move(merge_pair_[1]));
    merge_pair_.clear();
  }

  void read_model(const json& model) {
    if (const std::string type = type_of(model, "model"); type != "BPE")
      fail(fmt::format("has a model of type {}; this program knows BPE", type));
    known_keys(model, "model",
               {"type", "dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix", "fuse_unk",
                "byte_fallback", "ignore_merges", "vocab", "merges"});
    const json& dropout = member(model, "dropout");
    if (!dropout.is_null() && dropout != 0.0) fail("sets model.dropout, which makes tokens random");
    for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix"})
      if (const json& affix = member(model, key);
          !affix.is_null() && !(affix.is_string() && affix.get_ref<const std::string&>().empty()))
        fail(fmt::format("sets model.{} to {}, which this program does not apply", key, shown(affix)));
    file_.byte_fallback = flag(model, "byte_fallback", false, "model");
    file_.fuse_unknown = flag(model, "fuse_unk", false, "model");
    if (const json& unknown = member(model, "unk_token"); unknown.is_string())
      file_.unknown_token = unknown;
    else if (!unknown.is_null())
      fail(fmt::format("has model.unk_token = {}, not a text", shown(unknown)));
    file_.ignore_merges = flag(model, "ignore_merges", false, "model");
    if (file_.vocab.empty()) fail("has no model.vocab");
    resolve_merges();
  }

  void resolve_merges() {
    const auto id_of = [&](const std::string& token) {
      const auto it = file_.vocab.find(token);
      if (it == file_.vocab.end())
        fail(fmt::format("has a merge with '{}', which is not in its vocabulary", token));
      return it->second;
    };
    file_.merges.reserve(merges_.size());
    for (const auto& [left, right] : merges_)
      file_.merges.push_back({id_of(left), id_of(right), id_of(left + right)});
    merges_ = {};
  }

  void read_added_tokens(const json& list) {
    if (list.is_null()) return;
    if (!list.is_array()) fail("has added_tokens that are no list");
    if (list.size() > TokenizerLimits::kAddedTokens)
      fail(fmt::format("has {} added tokens, and at most {} are read", list.size(),
                       TokenizerLimits::kAddedTokens));
    for (const json& entry : list) {
      if (!entry.is_object() || !member(entry, "content").is_string() ||
          !member(entry, "id").is_number_integer() || entry["id"] < 0 ||
          entry["id"] > TokenizerLimits::kMaxTokenId)
        fail(fmt::format("has the added token {}, without content or a proper id", shown(entry)));
      known_keys(entry, "added_tokens",
                 {"id", "content", "single_word", "lstrip", "rstrip", "normalized", "special"});
      AddedToken token{.id = entry["id"], .content = entry["content"]};
      token.single_word = flag(entry, "single_word", false, token.content);
      token.lstrip = flag(entry, "lstrip", false, token.content);
      token.rstrip = flag(entry, "rstrip", false, token.content);
      token.special = flag(entry, "special", false, token.content);
      token.normalized = flag(entry, "normalized", !token.special, token.content);
      if (token.content.empty()) fail("has an added token without content");
      if (token.content.size() > TokenizerLimits::kAddedTokenBytes)
        fail(fmt::format("has an added token of {} bytes, and at most {} are read", token.content.size(),
                         TokenizerLimits::kAddedTokenBytes));
      file_.added_tokens.push_back(std::move(token));
    }
  }

  const std::string& name_;
  TokenizerFile file_;
  std::string vocab_key_;                // the key whose value comes next
  std::vector<std::string> merge_pair_;  // of an open ["a", "b"]
  std::vector<std::pair<std::string, std::string>> merges_;
};

}  // namespace

TokenizerFile parse_tokenizer_file(std::string_view json_text, const std::string& name) {
  return Parser(name).parse(json_text);
}

}  // namespace moerun
