#pragma once
#include <string>

#include "moerun/model_config.h"

namespace moerun {

struct GenerationConfig;

/// Reads MODEL_DIR/config.json as its family does (src/model/families; both spellings of what transformers 5
/// renamed) and the end-of-sequence ids of generation_config.json. Throws BadInput with every fault: what is
/// missing, of the wrong type, out of bounds (config_limits), contradictory, or not understood. A field that
/// is not known is never ignored unless it is null, because it might change the arithmetic.
ModelConfig read_model_config(const std::string& model_dir);

/// The same from a text; `name` is how messages call config.json.
ModelConfig parse_model_config(const std::string& config, const GenerationConfig& generation,
                               const std::string& name);

}  // namespace moerun
