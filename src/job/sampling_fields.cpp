#include "job/sampling_fields.h"

#include <algorithm>
#include <set>

#include "job/token_rule_fields.h"

namespace moerun {
namespace {

constexpr int64_t kInt32Max = std::numeric_limits<int32_t>::max();
constexpr double kFloatMax = std::numeric_limits<float>::max();

/// Empty stop strings would end every answer at once.
bool is_stop_string(const Json& value) {
  return value.is_string() && !value.get_ref<const std::string&>().empty();
}

/// A string or a list of strings, as in OpenAI's requests; null is none.
std::string read_stop(const Json& value, SamplingParams& target) {
  target.stop.clear();
  if (value.is_null()) return "";
  const Json list = value.is_array() ? value : Json::array({value});
  if (list.size() > StopLimits::kStrings)
    return fmt::format("has {} texts, and at most {} are taken", list.size(), StopLimits::kStrings);
  if (!std::all_of(list.begin(), list.end(), is_stop_string))
    return must_be("a text or a list of texts that are not empty", value);
  for (const Json& one : list)
    if (const size_t bytes = one.get_ref<const std::string&>().size(); bytes > StopLimits::kBytes)
      return fmt::format("has a text of {} bytes, and at most {} are taken", bytes, StopLimits::kBytes);
  target.stop = list.get<std::vector<std::string>>();
  return "";
}

std::string read_stop_token_ids(const Json& value, SamplingParams& target) {
  target.stop_token_ids.clear();
  if (value.is_null()) return "";
  const IntegerRange range{0, kInt32Max};
  int64_t id = 0;
  if (!value.is_array() ||
      !std::all_of(value.begin(), value.end(), [&](const Json& one) { return range.read(one, id); }))
    return must_be("a list of token ids", value);
  if (value.size() > StopLimits::kTokenIds)
    return fmt::format("has {} ids, and at most {} are taken", value.size(), StopLimits::kTokenIds);
  for (const Json& one : value) {
    range.read(one, id);
    target.stop_token_ids.push_back(static_cast<int32_t>(id));
  }
  // Each once: they are banned one by one while an answer is shorter than min_tokens.
  auto& ids = target.stop_token_ids;
  std::set<int32_t> seen;
  std::erase_if(ids, [&](int32_t one) { return !seen.insert(one).second; });
  return "";
}

/// As vLLM's: −1 stands for the longest that the model takes.
std::string read_truncate_prompt_tokens(const Json& value, SamplingParams& target) {
  int64_t count = 0;
  const IntegerRange range{1, kInt32Max};
  if (!value.is_null() && !(IntegerRange{-1, -1}.read(value, count) || range.read(value, count)))
    return must_be("null, -1 or an integer " + range.words(), value);
  target.truncate_prompt_tokens = static_cast<int32_t>(count);
  return "";
}

/// −1 is vLLM's for all, which is 0 here.
std::string read_top_k(const Json& value, SamplingParams& target) {
  int64_t count = 0;
  const IntegerRange range{-1, kInt32Max};
  if (!range.read(value, count)) return must_be("an integer " + range.words(), value);
  target.draw.top_k = static_cast<int32_t>(std::max<int64_t>(count, 0));
  return "";
}

/// true asks for the log-probabilities of the prompt's tokens, as 0 does; n also for the n most likely.
std::string read_prompt_logprobs(const Json& value, SamplingParams& target) {
  int64_t count = value == true ? 0 : -1;
  const IntegerRange range{0, kMaxLogprobs};
  if (!value.is_boolean() && !value.is_null() && !range.read(value, count))
    return must_be("true, false or an integer " + range.words(), value);
  target.prompt_logprobs = static_cast<int32_t>(count);
  return "";
}

Json write_prompt_logprobs(const SamplingParams& from) {
  return from.prompt_logprobs > 0 ? Json(from.prompt_logprobs) : Json(from.prompt_logprobs == 0);
}

std::vector<Field<SamplingParams>> make_fields() {
  using S = SamplingParams;
  return {
      integer<S>("n", [](auto& s) -> auto& { return s.n; }, {1, kMaxAnswers}),
      integer<S>("max_tokens", [](auto& s) -> auto& { return s.max_tokens; }, {0, kInt32Max}),
      integer<S>("min_tokens", [](auto& s) -> auto& { return s.min_tokens; }, {0, kInt32Max}),
      number<S>("temperature", [](auto& s) -> auto& { return s.draw.temperature; }, {0, 100}),
      number<S>("top_p", [](auto& s) -> auto& { return s.draw.top_p; }, {0, 1, true}),
      {"top_k", read_top_k, [](const S& s) { return Json(s.draw.top_k); }},
      number<S>("min_p", [](auto& s) -> auto& { return s.draw.min_p; }, {0, 1}),
      number<S>("repetition_penalty", [](auto& s) -> auto& { return s.draw.repetition_penalty; },
                {0, kFloatMax, true}),
      number<S>("presence_penalty", [](auto& s) -> auto& { return s.draw.presence_penalty; }, {-2, 2}),
      number<S>("frequency_penalty", [](auto& s) -> auto& { return s.draw.frequency_penalty; }, {-2, 2}),
      seed<S>(
          "seed", [](auto& s) -> auto& { return s.draw.seed; }),
      {"stop", read_stop, [](const S& s) { return Json(s.stop); }},
      boolean<S>(
          "include_stop_str_in_output", [](auto& s) -> auto& { return s.include_stop_str_in_output; }),
      boolean<S>(
          "skip_special_tokens", [](auto& s) -> auto& { return s.skip_special_tokens; }),
      {"truncate_prompt_tokens", read_truncate_prompt_tokens,
       [](const S& s) { return s.truncate_prompt_tokens == 0 ? Json() : Json(s.truncate_prompt_tokens); }},
      {"stop_token_ids", read_stop_token_ids, [](const S& s) { return Json(s.stop_token_ids); }},
      boolean<S>(
          "ignore_eos", [](auto& s) -> auto& { return s.ignore_eos; }),
      integer_or<S>(
          "logprobs", [](auto& s) -> auto& { return s.draw.logprobs; }, {0, kMaxLogprobs}, Json(), -1),
      {"prompt_logprobs", read_prompt_logprobs, write_prompt_logprobs},
      integer<S>("prompt_logprobs_start", [](auto& s) -> auto& { return s.prompt_logprobs_start; },
                 {0, kInt32Max}),
      boolean<S>(
          "prompt_is_greedy", [](auto& s) -> auto& { return s.prompt_is_greedy; }),
  };
}

std::vector<Field<SamplingParams>> all_fields() {
  std::vector<Field<SamplingParams>> fields = make_fields();
  for (Field<SamplingParams>& field : token_rule_fields()) fields.push_back(std::move(field));
  return fields;
}

}  // namespace

const std::vector<Field<SamplingParams>>& sampling_fields() {
  static const std::vector<Field<SamplingParams>> fields = all_fields();
  return fields;
}

const Field<SamplingParams>* find_sampling_field(std::string_view name) {
  for (const auto& field : sampling_fields())
    if (field.name == name) return &field;
  return nullptr;
}

Contradiction contradiction(const SamplingParams& sampling) {
  if (sampling.min_tokens > sampling.max_tokens)
    return {"min_tokens", fmt::format("min_tokens ({}) is more than max_tokens ({})", sampling.min_tokens,
                                      sampling.max_tokens)};
  if (sampling.n > 1 && sampling.max_tokens == 0)
    return {"n", fmt::format("n ({}) asks for several answers, and max_tokens (0) for none", sampling.n)};
  return {};
}

std::string beyond_prompt(const SamplingParams& sampling, size_t prompt_length) {
  if (!sampling.scores_prompt() || static_cast<size_t>(sampling.prompt_logprobs_start) < prompt_length)
    return "";
  return fmt::format("prompt_logprobs_start is {}, and the prompt has {} tokens: none is left to score",
                     sampling.prompt_logprobs_start, prompt_length);
}

std::optional<TokenizerNeed> tokenizer_need(const SamplingParams& sampling) {
  if (!sampling.stop.empty()) return TokenizerNeed{"stop", "stop strings need", "give stop_token_ids"};
  if (!sampling.bad_words.empty()) return TokenizerNeed{"bad_words", "bad_words need", "leave them out"};
  if (sampling.form.kind != AnswerForm::Kind::any)
    return TokenizerNeed{"structured_outputs", "structured_outputs need", "leave them out"};
  if (sampling.thinking_budget >= 0)
    return TokenizerNeed{"thinking_budget", "a thinking_budget needs", "leave it out"};
  return std::nullopt;
}

Contradiction outside_vocabulary(const SamplingParams& sampling, int64_t vocab_size) {
  const auto outside = [&](const char* option, const char* what, int32_t id) -> Contradiction {
    return {option, fmt::format("{} {} is outside of the model's vocabulary of {}", what, id, vocab_size)};
  };
  for (const int32_t id : sampling.stop_token_ids)
    if (id >= vocab_size) return outside("stop_token_ids", "stop token id", id);
  for (const TokenBias& one : sampling.logit_bias)
    if (one.token >= vocab_size) return outside("logit_bias", "logit_bias: token id", one.token);
  for (const int32_t id : sampling.allowed_token_ids)
    if (id >= vocab_size) return outside("allowed_token_ids", "allowed token id", id);
  return {};
}

}  // namespace moerun
