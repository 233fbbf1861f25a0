#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "moerun/sampling.h"

namespace moerun {

/// What of a model's generation_config.json concerns a job.
struct GenerationConfig {
  std::vector<int32_t> eos_token_ids;

  /// A value that would change answers and that no job takes by itself.
  struct Value {
    std::string name;   ///< the file's own
    std::string value;  ///< as JSON
    std::string key;    ///< of the job that asks for the same; empty: there is none
  };
  std::vector<Value> sampling;  ///< those that are not neutral
};

/// From MODEL_DIR/generation_config.json; nothing when there is no such file. Throws BadInput.
GenerationConfig read_generation_config(const std::string& model_dir);
GenerationConfig parse_generation_config(const std::string& text, const std::string& name);

/// A sentence for the user where `config` asks for another sampling than the job: what is not taken, and how
/// to take it. Empty: nothing to say. `name`: the file's path.
std::string sampling_not_taken(const GenerationConfig& config, const SamplingParams& job,
                               const std::string& name);

}  // namespace moerun
