#pragma once
#include <initializer_list>
#include <optional>

#include "model/config_fields.h"
#include "moerun/model_config.h"

namespace moerun {

/// What holds where a config.json is silent: transformers' defaults, a family each.
struct DecoderDefaults {
  double rope_theta = 10000, rms_norm_eps = 1e-6;
  bool tie_word_embeddings = false;
  std::optional<double> partial_rotary;  ///< none: the family rotates whole heads
  /// Rotary positions have sections of time, height and width: of a text's tokens all three are the same.
  bool rotary_sections = false;
};

// Parts of a config.json that families share. Each takes its fields; what is wrong is collected.

/// Vocabulary, width, layers, heads, positions, norm, tied embeddings, dtype, rotary embedding: everything
/// but the MLPs.
void read_decoder(Fields& fields, const DecoderDefaults& defaults, ModelConfig& config);

/// `rope_theta` with `rope_scaling`, or `rope_parameters` that has both (as transformers ≥ 5 writes).
void read_rope(Fields& fields, const DecoderDefaults& defaults, RopeConfig& rope);

/// A model with vision, of which the text part is run: `read` takes the fields of `text_config`.
void read_text_config(Fields& fields, ModelConfig& config, void (*read)(Fields& fields, ModelConfig& config));

/// A fault for each that is absent: where a family's own default is a number that no other knows.
void require_fields(Fields& fields, std::initializer_list<const char*> keys);

struct Within {
  int64_t least = 0, most = 0;
};
/// A field that has two names, of which either will do; both where they agree.
void read_alias(Fields& fields, const char* key, const char* other_key, Within within, int64_t& value);

/// `num_experts` or `num_local_experts`: transformers ≥ 5 writes the one for what was published as the other.
void read_num_experts(Fields& fields, int64_t least, ModelConfig& config);

void read_experts_per_token(Fields& fields, ModelConfig& config);

/// `shared_expert_intermediate_size`: the expert that every token takes, with a gate.
void read_shared_expert(Fields& fields, ModelConfig& config);

/// Qwen's: layers are sparse unless `mlp_only_layers` lists them or `decoder_sparse_step` skips them.
void read_sparse_layers(Fields& fields, ModelConfig& config);

/// `sliding_window`: one that every sequence fits into cuts nothing off, any other is refused.
void read_window(Fields& fields, const ModelConfig& config);

/// That many layers behind the model's own are for multi-token prediction, and not run.
void pass_over_layers(int64_t count, ModelConfig& config);

/// Refuses what other values of fields that any family may have would change. After the family has read its
/// own.
void refuse_unsupported(Fields& fields);

/// Token ids of `eos_token_id`, a number or a list.
std::vector<int32_t> read_eos_ids(Fields& fields);

/// What must hold between fields. For a configuration without faults so far.
void check_shape(const ModelConfig& config, Fields& fields);

/// Fields without a word about the arithmetic of a forward pass, whatever their value: what transformers'
/// PretrainedConfig writes of its own, what concerns training or generating, and what trainers leave.
const std::set<std::string_view>& harmless_fields();

}  // namespace moerun
