#include "model/generation_config.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <filesystem>

#include "base/json_file.h"
#include "job/sampling_fields.h"
#include "model/config_parts.h"
#include "moerun/error.h"

namespace moerun {

namespace {

/// A value of transformers' GenerationConfig that changes answers.
struct Known {
  const char* name;
  const char* key;      ///< of the job; null: none does the same
  const char* neutral;  ///< as JSON: the value that changes nothing; null is neutral too
  bool drawing;         ///< of effect only where tokens are drawn
  bool taken = false;   ///< by `sampling.defaults: model`
};

constexpr std::array kKnown{Known{"temperature", "temperature", "1.0", true, true},
                            Known{"top_p", "top_p", "1.0", true, true},
                            Known{"top_k", "top_k", "0", true, true},
                            Known{"min_p", "min_p", "0", true, true},
                            Known{"typical_p", nullptr, "1.0", true},
                            Known{"epsilon_cutoff", nullptr, "0", true},
                            Known{"eta_cutoff", nullptr, "0", true},
                            Known{"top_h", nullptr, "null", true},
                            Known{"repetition_penalty", "repetition_penalty", "1.0", false, true},
                            Known{"presence_penalty", "presence_penalty", "0", false},
                            Known{"frequency_penalty", "frequency_penalty", "0", false},
                            Known{"max_new_tokens", "max_tokens", "null", false},
                            Known{"min_new_tokens", "min_tokens", "0", false},
                            Known{"stop_strings", "stop", "[]", false},
                            Known{"encoder_repetition_penalty", nullptr, "1.0", false},
                            Known{"no_repeat_ngram_size", nullptr, "0", false},
                            Known{"num_beams", nullptr, "1", false},
                            Known{"penalty_alpha", nullptr, "0", false},
                            Known{"guidance_scale", nullptr, "1.0", false},
                            Known{"bad_words_ids", nullptr, "[]", false},
                            Known{"suppress_tokens", nullptr, "[]", false},
                            Known{"begin_suppress_tokens", nullptr, "[]", false},
                            Known{"forced_bos_token_id", nullptr, "null", false},
                            Known{"forced_eos_token_id", nullptr, "null", false},
                            Known{"sequence_bias", nullptr, "null", false},
                            Known{"exponential_decay_length_penalty", nullptr, "null", false},
                            Known{"watermarking_config", nullptr, "null", false}};

/// Whether a value changes nothing, however it says so.
bool is_neutral(const Known& known, const nlohmann::json& value) {
  const nlohmann::json neutral = nlohmann::json::parse(known.neutral);
  if (value == neutral) return true;
  const Field<SamplingParams>* const field = known.key ? find_sampling_field(known.key) : nullptr;
  SamplingParams asked, none;
  return field && field->read(Json::parse(value.dump(-1, ' ', true)), asked).empty() &&
         field->read(Json::parse(known.neutral), none).empty() && asked == none;
}

/// Whether the job's options hold the file's value already.
bool job_has(const GenerationConfig::Value& value, const SamplingParams& job) {
  const Field<SamplingParams>* const field = find_sampling_field(value.key);
  SamplingParams asked = job;
  return field && field->read(Json::parse(value.value), asked).empty() && asked == job;
}

}  // namespace

GenerationConfig parse_generation_config(const std::string& text, const std::string& name) {
  const nlohmann::json json = parse_json_object(text, name);
  std::vector<std::string> faults;
  Fields fields(json, name, faults);
  GenerationConfig out{.eos_token_ids = read_eos_ids(fields)};
  if (!faults.empty()) throw BadInput(fmt::format("{}", fmt::join(faults, "\n")));
  const nlohmann::json* const draws = fields.find("do_sample");
  const bool never = draws && *draws == false, always = draws && *draws == true;
  for (const Known& known : kKnown) {
    const bool temperature = std::string_view(known.name) == "temperature";
    const nlohmann::json* const given = fields.find(known.name);
    const nlohmann::json drawn = 1.0;  // what `do_sample` without a temperature means
    const nlohmann::json* const value = !given && temperature && always ? &drawn : given;
    if (!value || (known.drawing && never)) continue;
    // A job is greedy unless it says otherwise, and who takes this temperature is not.
    const bool neutral = is_neutral(known, *value) && !(temperature && always);
    if (neutral && !temperature) continue;
    out.sampling.push_back({known.name, value->dump(-1, ' ', true), known.key ? known.key : "", neutral});
  }
  return out;
}

std::string generation_config_of(const std::string& model_dir) {
  return model_dir + "/generation_config.json";
}

GenerationConfig read_generation_config(const std::string& model_dir) {
  const std::string path = generation_config_of(model_dir);
  if (!std::filesystem::exists(path)) return {};
  return parse_generation_config(read_text_file(path, JsonLimits().bytes), path);
}

std::string take_sampling(const GenerationConfig& config, const std::string& name, Job& job) {
  std::vector<std::string> taken, faults;
  for (const GenerationConfig::Value& value : config.sampling) {
    const auto known =
        std::find_if(kKnown.begin(), kKnown.end(), [&](const Known& one) { return one.name == value.name; });
    if (known == kKnown.end() || !known->taken ||
        job.given.names.contains("sampling." + std::string(value.key)))
      continue;
    const nlohmann::json json = nlohmann::json::parse(value.value);
    if (const std::string wrong = find_sampling_field(value.key)->read(json, job.sampling); !wrong.empty())
      faults.push_back(fmt::format("{}: {} {}; give sampling.{}, or sampling.defaults: none", name,
                                   value.name, wrong, value.key));
    taken.push_back(fmt::format("{} {}", value.name, shown(json)));
  }
  if (!faults.empty()) throw BadInput(fmt::format("{}", fmt::join(faults, "\n")));
  return taken.empty() ? "nothing" : fmt::format("{}", fmt::join(taken, ", "));
}

std::string sampling_not_taken(const GenerationConfig& config, const SamplingParams& job,
                               const std::string& name) {
  std::vector<std::string> values, keys;
  for (const GenerationConfig::Value& value : config.sampling) {
    if (value.taken_alone || job_has(value, job)) continue;
    const std::string text = shown(nlohmann::json::parse(value.value));
    values.push_back(fmt::format("{} {}", value.name, text));
    if (!value.key.empty()) keys.push_back(fmt::format("sampling.{}={}", value.key, text));
  }
  if (values.empty()) return "";
  return fmt::format(
      "{}: {} {} not taken from there{}", name, fmt::join(values, ", "), values.size() == 1 ? "is" : "are",
      keys.empty()
          ? std::string()
          : fmt::format("; to answer with {}: {}", keys.size() == 1 ? "it" : "them", fmt::join(keys, " ")));
}

}  // namespace moerun
