// ERNIE 4.5 (Hugging Face `modeling_ernie4_5_moe.py`): ERNIE-4.5-21B-A3B, ERNIE-4.5-300B-A47B.
#include <fmt/format.h>

#include <cmath>

#include "model/blocks/attention.h"
#include "model/blocks/decoder_tensors.h"
#include "model/blocks/dense_mlp.h"
#include "model/blocks/experts.h"
#include "model/config_parts.h"
#include "model/decoder.h"
#include "model/families.h"

namespace moerun {

namespace {

/// `Ernie4_5_MoeDecoderLayer`: sparse from `moe_layer_start_index` to `moe_layer_end_index`, every
/// `moe_layer_interval`-th.
void read_layers(Fields& fields, ModelConfig& config) {
  int64_t first = 1, last = -1, interval = 1;
  fields.read("moe_layer_start_index", first, 0, config_limits::kLayers);
  fields.read("moe_layer_end_index", last, -1, config_limits::kLayers);
  fields.read("moe_layer_interval", interval, 1, config_limits::kLayers);
  if (last == -1) last = config.num_hidden_layers - 1;
  for (int64_t layer = 0; layer < config.num_hidden_layers; ++layer)
    config.sparse.push_back((layer + 1) % interval == 0 && layer >= first && layer <= last);
}

/// `Ernie4_5_MoeTopKRouter`.
void read_router(Fields& fields, ModelConfig& config) {
  double least = 1e-12;
  if (fields.read("moe_norm_min", least) && !(std::isfinite(least) && least >= 0))
    fields.fault(fmt::format("moe_norm_min is {}, and must be at least 0", least));
  config.router = {.normalise = true, .least_sum = static_cast<float>(least)};
  config.router_bias = config.router_float32 = true;
  fields.expect("moe_use_aux_free", true, "experts of this family are chosen with a bias");
  // How its trainers spread tokens over experts: a forward pass drops none.
  for (const char* const unused : {"moe_gate", "moe_capacity"}) fields.find(unused);
}

void read(Fields& fields, ModelConfig& config) {
  read_decoder(fields, {.rope_theta = 5e5, .rms_norm_eps = 1e-5, .tie_word_embeddings = true}, config);
  require_fields(fields, {"num_key_value_heads"});
  config.rope.interleaved = true;
  fields.read("use_bias", config.qkv_bias);
  config.output_bias = config.mlp_bias = config.head_bias = config.qkv_bias;
  fields.expect("use_rmsnorm", true, "other norms are not supported");
  fields.expect("compression_ratio", 1.0, "compressed positions are not supported");
  read_alias(fields, "moe_num_experts", "num_experts", {1, config_limits::kExperts}, config.num_experts);
  read_alias(fields, "moe_k", "num_experts_per_tok", {1, config_limits::kExperts},
             config.num_experts_per_tok);
  fields.require("moe_intermediate_size", config.moe_intermediate_size, 1, config_limits::kHidden);
  fields.require("intermediate_size", config.intermediate_size, 1, config_limits::kHidden);
  int64_t shared = 0, ahead = 0;
  fields.require("moe_num_shared_experts", shared, 0, config_limits::kExperts);
  config.shared_intermediate_size = shared * config.moe_intermediate_size;
  read_router(fields, config);
  read_layers(fields, config);
  fields.read("num_nextn_predict_layers", ahead, 0, config_limits::kLayers);
  if (ahead > 0) config.passed_over.push_back({"model.mtp_", "of multi-token prediction"});
}

void tensors(const ModelConfig& config, TensorList& out) {
  decoder_tensors(config, out, [&](const std::string& prefix, int64_t layer) {
    const std::string mlp = prefix + ".mlp";
    expert_tensors(config, qwen_experts(mlp), layer, out);
    TensorSpec& bias = out.matrix(mlp + ".moe_statics.e_score_correction_bias", 1, config.num_experts,
                                  Cut::whole, {Role::router_bias, layer});
    bias.stored.push_back({mlp + ".gate.moe_statics.e_score_correction_bias", {1, config.num_experts}});
    bias.format.dtype = DType::float32;
    if (config.shared_intermediate_size > 0)
      dense_mlp_tensors(config, mlp + ".shared_experts", layer, kSharedExpert, out);
  });
}

}  // namespace

const Family families::ernie4_5_moe{
    .architecture = "Ernie4_5_MoeForCausalLM",
    .model_type = "ernie4_5_moe",
    .read = read,
    .tensors = tensors,
    .keeps = attention_keeps,
    .make = make_decoder,
};

}  // namespace moerun
