#pragma once
#include <string>
#include <vector>

#include "io/safetensors.h"
#include "moerun/model_config.h"

namespace moerun {

/// What a layer's keys, and its values, are divided by before they are rounded to e4m3.
struct KeyValueScale {
  float key = 1, value = 1;
};

/// Scales of keys and values that a checkpoint brings: scalars beside a layer's projections, as
/// compressed-tensors and vLLM name them ("….self_attn.k_scale", "….self_attn.attn.k_scale",
/// "….self_attn.k_proj.k_scale"; of values likewise).
struct StoredKeyValueScales {
  std::vector<KeyValueScale> of_layer;  ///< [layers], or empty where there are none
  std::vector<std::string> names;       ///< of their tensors
  std::vector<std::string> faults;      ///< one that is missing where others are there, or is no scale
};

StoredKeyValueScales find_key_value_scales(const ModelConfig& config, const Checkpoint& checkpoint);

}  // namespace moerun
