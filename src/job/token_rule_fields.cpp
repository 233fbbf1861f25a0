#include "job/token_rule_fields.h"

#include <algorithm>
#include <charconv>
#include <map>

#include "job/form_fields.h"

namespace moerun {
namespace {

constexpr int64_t kInt32Max = std::numeric_limits<int32_t>::max();

/// A token id as an object's key has it: decimal digits alone.
bool read_id(const std::string& text, int32_t& id) {
  const char* const end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, id);
  return error == std::errc() && stop == end && text[0] != '-';
}

/// OpenAI's form: {"token id": bias}. What adds nothing is left out.
std::string read_logit_bias(const Json& value, SamplingParams& target) {
  target.logit_bias.clear();
  if (value.is_null()) return "";
  if (!value.is_object()) return must_be("an object of token ids and numbers", value);
  if (value.size() > TokenRuleLimits::kBiases)
    return fmt::format("has {} tokens, and at most {} are taken", value.size(), TokenRuleLimits::kBiases);
  const NumberRange range{-100, 100};
  std::map<int32_t, float> biases;  // 7 and 07 are one token
  for (const auto& [key, given] : value.items()) {
    int32_t id = 0;
    double bias = 0;
    if (!read_id(key, id)) return "has a key that " + must_be("a token id", Json(key));
    if (!range.read(given, bias))
      return fmt::format("{}: {}", key, must_be("a number " + range.words(), given));
    if (!biases.emplace(id, static_cast<float>(bias)).second)
      return fmt::format("names token id {} twice", id);
  }
  for (const auto& [id, bias] : biases)
    if (bias != 0) target.logit_bias.push_back({id, bias});
  return "";
}

Json write_logit_bias(const SamplingParams& from) {
  Json biases = Json::object();
  for (const TokenBias& one : from.logit_bias) biases[std::to_string(one.token)] = json_of(one.bias);
  return biases;
}

std::string read_allowed_token_ids(const Json& value, SamplingParams& target) {
  auto& ids = target.allowed_token_ids;
  ids.clear();
  if (value.is_null()) return "";
  const IntegerRange range{0, kInt32Max};
  if (!value.is_array() || value.empty()) return must_be("a list of token ids that is not empty", value);
  if (value.size() > TokenRuleLimits::kAllowed)
    return fmt::format("has {} ids, and at most {} are taken", value.size(), TokenRuleLimits::kAllowed);
  for (const Json& one : value) {
    int64_t id = 0;
    if (!range.read(one, id)) return must_be("a list of token ids that is not empty", value);
    ids.push_back(static_cast<int32_t>(id));
  }
  std::sort(ids.begin(), ids.end());
  ids.erase(std::unique(ids.begin(), ids.end()), ids.end());
  return "";
}

Json write_allowed_token_ids(const SamplingParams& from) {
  return from.allowed_token_ids.empty() ? Json() : Json(from.allowed_token_ids);
}

std::string read_bad_words(const Json& value, SamplingParams& target) {
  target.bad_words.clear();
  if (value.is_null()) return "";
  const auto is_word = [](const Json& one) {
    return one.is_string() && !one.get_ref<const std::string&>().empty();
  };
  if (!value.is_array() || !std::all_of(value.begin(), value.end(), is_word))
    return must_be("a list of texts that are not empty", value);
  if (value.size() > TokenRuleLimits::kWords)
    return fmt::format("has {} texts, and at most {} are taken", value.size(), TokenRuleLimits::kWords);
  for (const Json& one : value)
    if (const size_t bytes = one.get_ref<const std::string&>().size(); bytes > TokenRuleLimits::kWordBytes)
      return fmt::format("has a text of {} bytes, and at most {} are taken", bytes,
                         TokenRuleLimits::kWordBytes);
  target.bad_words = value.get<std::vector<std::string>>();
  return "";
}

}  // namespace

std::vector<Field<SamplingParams>> token_rule_fields() {
  using S = SamplingParams;
  return {
      {"logit_bias", read_logit_bias, write_logit_bias, true},
      {"allowed_token_ids", read_allowed_token_ids, write_allowed_token_ids},
      {"bad_words", read_bad_words, [](const S& s) { return Json(s.bad_words); }},
      structured_outputs_field(),
      integer_or<S>(
          "thinking_budget", [](auto& s) -> auto& { return s.thinking_budget; }, {0, kInt32Max}, Json(), -1),
  };
}

}  // namespace moerun
