#pragma once
#include <cstdint>
#include <vector>

#include "moerun/model_config.h"

namespace moerun {

/// Cosines and sines of the rotary position embedding, each [positions, rotary_dim() / 2], with the attention
/// factor of YaRN folded in.
struct RopeTables {
  std::vector<float> cos, sin;
};

/// As Hugging Face `modeling_rope_utils.py` computes them: default, linear, and YaRN (arXiv:2309.00071).
RopeTables rope_tables(const ModelConfig& config, int64_t positions);

/// The longest sequence that the model's positions allow: what its configuration says, or with scaled
/// positions what the scaling reaches.
int64_t most_positions(const ModelConfig& config);

}  // namespace moerun
