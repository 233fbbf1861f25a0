#include "model/config.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <filesystem>

#include "base/json_file.h"
#include "model/config_parts.h"
#include "model/families.h"
#include "model/generation_config.h"
#include "model/quantization.h"
#include "moerun/error.h"
#include "text/checksum.h"

namespace moerun {

ModelConfig parse_model_config(const std::string& text, const GenerationConfig& generation,
                               const std::string& name) {
  const nlohmann::json json = parse_json_object(text, name);
  std::vector<std::string> faults;
  Fields fields(json, name, faults);
  ModelConfig config;
  config.checksum = sha256_hex(text);

  config.family = find_family(fields);
  if (config.family) config.family->read(fields, config);
  const std::vector<std::string> not_converted = read_quantization(fields, config.quantization);
  refuse_unsupported(fields);
  if (config.family) {
    const nlohmann::json* const code = fields.find("auto_map");
    if (code && !code->empty())
      config.notes.push_back(
          fmt::format("{}: the model code that auto_map names is not run; this program's own {} is", name,
                      config.family->architecture));
    if (std::vector<int32_t> ids = read_eos_ids(fields); !ids.empty()) config.eos_token_ids = std::move(ids);
    fields.refuse_unknown(harmless_fields());
    if (faults.empty()) check_shape(config, fields);
    if (faults.empty()) settle_quantization(not_converted, config, fields);
  }
  if (!generation.eos_token_ids.empty()) config.eos_token_ids = generation.eos_token_ids;
  for (const int32_t id : config.eos_token_ids)
    if (config.vocab_size > 0 && id >= config.vocab_size)
      fields.fault(
          fmt::format("eos_token_id {} (of {} or generation_config.json) is outside of the vocabulary of {}",
                      id, name, config.vocab_size));
  if (!faults.empty()) throw BadInput(fmt::format("{}", fmt::join(faults, "\n")));
  return config;
}

ModelConfig read_model_config(const std::string& model_dir) {
  const std::string path = model_dir + "/config.json";
  if (!std::filesystem::exists(path))
    throw BadInput(fmt::format("{}: cannot be read; model.path must be a Hugging Face model folder", path));
  return parse_model_config(read_text_file(path, JsonLimits().bytes), read_generation_config(model_dir),
                            path);
}

}  // namespace moerun
