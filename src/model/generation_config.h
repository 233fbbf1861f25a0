#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "moerun/job.h"
#include "moerun/sampling.h"

namespace moerun {

/// What of a model's generation_config.json concerns a job.
struct GenerationConfig {
  std::vector<int32_t> eos_token_ids;

  /// A value that changes answers where it is taken.
  struct Value {
    std::string name;          ///< the file's own
    std::string value;         ///< as JSON
    std::string key;           ///< of the job that asks for the same; empty: there is none
    bool taken_alone = false;  ///< temperature 1.0: the neutral one, which only counts where it is taken
  };
  std::vector<Value> sampling;  ///< those that are not neutral
};

/// From MODEL_DIR/generation_config.json; nothing when there is no such file. Throws BadInput.
GenerationConfig read_generation_config(const std::string& model_dir);
GenerationConfig parse_generation_config(const std::string& text, const std::string& name);

/// The path of a model's generation_config.json, for reading and for messages.
std::string generation_config_of(const std::string& model_dir);

/// `sampling.defaults: model`: gives `job` the values of `config` that vLLM takes by default
/// (`--generation-config auto`: temperature, top_p, top_k, min_p, repetition_penalty), those that the job
/// does not give itself; rows go by the job's, so theirs come first too. Returns what was taken, for people:
/// "temperature 0.7, top_p 0.8", or "nothing". Throws BadInput, naming the file `name`, where a value is out
/// of range.
std::string take_sampling(const GenerationConfig& config, const std::string& name, Job& job);

/// A sentence for the user where `config` asks for another sampling than the job: what is not taken, and how
/// to take it. Empty: nothing to say. `name`: the file's path.
std::string sampling_not_taken(const GenerationConfig& config, const SamplingParams& job,
                               const std::string& name);

}  // namespace moerun
