#pragma once
#include "model/config_fields.h"
#include "moerun/model_config.h"

namespace moerun {

// Parts of a config.json that families share. Each takes its fields; what is wrong is collected.

/// Vocabulary, width, layers, heads, positions, norm, tied embeddings, dtype, rotary embedding: everything
/// but the MLPs. `default_theta` is the family's rope_theta where the file has none.
void read_decoder(Fields& fields, double default_theta, ModelConfig& config);

/// `rope_theta` with `rope_scaling`, or `rope_parameters` that has both (as transformers ≥ 5 writes).
void read_rope(Fields& fields, RopeConfig& rope);

/// `num_experts` or `num_local_experts`: transformers ≥ 5 writes the one for what was published as the other.
void read_num_experts(Fields& fields, int64_t least, ModelConfig& config);

/// Refuses what other values of fields that any family may have would change.
void refuse_unsupported(Fields& fields);

/// Token ids of `eos_token_id`, a number or a list.
std::vector<int32_t> read_eos_ids(Fields& fields);

/// What must hold between fields. For a configuration without faults so far.
void check_shape(const ModelConfig& config, Fields& fields);

/// Fields without a word about the arithmetic of a forward pass, whatever their value: what transformers'
/// PretrainedConfig writes of its own, what concerns training or generating, and what trainers leave.
const std::set<std::string_view>& harmless_fields();

}  // namespace moerun
