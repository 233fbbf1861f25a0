#include "io/openai_fields.h"

#include <algorithm>
#include <string_view>
#include <vector>

namespace moerun {
namespace {

/// Labels, accounting and transport.
constexpr std::string_view kWithoutEffect[] = {"user",
                                               "metadata",
                                               "store",
                                               "service_tier",
                                               "safety_identifier",
                                               "prompt_cache_key",
                                               "prompt_cache_retention",
                                               "prediction",
                                               "stream_options",
                                               "priority",
                                               "request_id",
                                               "cache_salt"};

/// A field that is understood where it asks for what this program does anyway.
struct Rule {
  std::string name;
  bool (*harmless)(const Json& value, const Json& body);
  const char* only;  ///< the values that pass, in words
};

template <bool kValue>
bool is_bool(const Json& value, const Json& /*body*/) {
  return value == kValue;
}

bool is_one(const Json& value, const Json& /*body*/) { return value == 1; }

bool is_empty_list(const Json& value, const Json& /*body*/) { return value == Json::array(); }

const std::vector<Rule>& rules() {
  static const std::vector<Rule> kRules{
      {"best_of",
       [](const Json& value, const Json& body) { return value == 1 && body.value("n", Json(1)) == 1; },
       "1 beside one answer"},
      {"length_penalty", is_one, "1"},
      {"stream", is_bool<false>, "false"},
      {"use_beam_search", is_bool<false>, "false"},
      {"continue_final_message", is_bool<false>, "false"},
      {"add_special_tokens", is_bool<false>, "false"},
      {"return_token_ids", is_bool<false>, "false"},
      {"return_tokens_as_token_ids", is_bool<false>, "false"},
      {"spaces_between_special_tokens", is_bool<true>, "true"},
      {"add_generation_prompt", is_bool<true>, "true"},
      {"functions", is_empty_list, "[]"},
      {"suffix", [](const Json& value, const Json&) { return value == ""; }, "\"\""},
      {"verbosity", [](const Json& value, const Json&) { return value == "medium"; }, "\"medium\""},
      {"modalities", [](const Json& value, const Json&) { return value == Json::array({"text"}); },
       "[\"text\"]"},
      {"function_call", [](const Json& value, const Json&) { return value == "none" || value == "auto"; },
       "\"none\" or \"auto\""},
      {"parallel_tool_calls", [](const Json& value, const Json&) { return value.is_boolean(); },
       "true or false"},
      {"tool_choice", [](const Json& value, const Json&) { return value == "auto" || value == "none"; },
       "\"auto\" or \"none\""},
  };
  return kRules;
}

/// Fields that ask for another answer, or another kind of it.
constexpr std::string_view kChangesAnswers[] = {
    "audio",     "reasoning_effort", "web_search_options",  "logits_processors",
    "documents", "chat_template",    "mm_processor_kwargs", "reasoning"};

template <size_t kCount>
bool contains(const std::string_view (&names)[kCount], std::string_view name) {
  return std::find(std::begin(names), std::end(names), name) != std::end(names);
}

}  // namespace

UnreadField judge_unread_field(const std::string& name, const Json& body, Endpoint endpoint,
                               std::string& why) {
  const bool chat = endpoint == Endpoint::chat_completions;
  if (contains(kWithoutEffect, name)) return UnreadField::harmless;
  if (contains(kChangesAnswers, name)) {
    why = fmt::format("body.{} would change the answer, and this program cannot do it: leave it out", name);
    return UnreadField::refused;
  }
  const Json& value = body[name];
  // Completions ask for log-probabilities by `logprobs: n` alone.
  if (!chat && name == "top_logprobs" && value == 0) return UnreadField::harmless;
  const auto rule =
      std::find_if(rules().begin(), rules().end(), [&](const Rule& one) { return one.name == name; });
  if (rule == rules().end()) return UnreadField::unknown;
  if (rule->harmless(value, body)) return UnreadField::harmless;
  why = fmt::format("body.{} is not supported other than as {}: {} would change the answer", name, rule->only,
                    shown(value));
  return UnreadField::refused;
}

}  // namespace moerun
