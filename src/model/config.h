#pragma once
#include <string>

#include "moerun/model_config.h"

namespace moerun {

/// Reads MODEL_DIR/config.json (both spellings: `rope_theta`/`rope_scaling`/`torch_dtype` and
/// `rope_parameters`/`dtype`) and the end-of-sequence ids of generation_config.json. Throws BadInput with
/// every fault: what is missing, of the wrong type, contradictory, or not understood. A field that is not
/// known is never ignored, because it might change the arithmetic.
ModelConfig read_model_config(const std::string& model_dir);

/// The same from texts; `name` is how messages call config.json. `generation` may be empty.
ModelConfig parse_model_config(const std::string& config, const std::string& generation,
                               const std::string& name);

}  // namespace moerun
