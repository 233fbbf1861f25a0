// MiniMax-M2 (Hugging Face `modeling_minimax_m2.py`): MiniMax-M2, M2.1, M2.5, M2.7.
#include "model/blocks/attention.h"
#include "model/blocks/decoder_tensors.h"
#include "model/blocks/experts.h"
#include "model/config_parts.h"
#include "model/decoder.h"
#include "model/families.h"

namespace moerun {

namespace {

/// Published checkpoints say how much of a head is rotated as `rotary_dim`, transformers ≥ 5 as a factor.
double rotated_part(Fields& fields) {
  int64_t rotated = 0, head_dim = 0;
  fields.require("head_dim", head_dim, 1, config_limits::kHeadDim);
  if (!fields.read("rotary_dim", rotated, 2, config_limits::kHeadDim) || head_dim == 0) return 1;
  return static_cast<double>(rotated) / static_cast<double>(head_dim);
}

/// Fields of the published configurations at the values that `modeling_minimax_m2.py` stands for.
void expect_published(Fields& fields, const ModelConfig& config) {
  fields.expect("scoring_func", "sigmoid", "the scores of this family are sigmoids");
  fields.expect("use_routing_bias", true, "experts of this family are chosen with a bias");
  fields.expect("use_qk_norm", true, "queries and keys of this family are normed");
  fields.expect("qk_norm_type", "per_layer", "they are normed over all heads together");
  for (const char* const beta :
       {"layernorm_full_attention_beta", "layernorm_linear_attention_beta", "layernorm_mlp_beta"})
    fields.expect(beta, 1.0, "other residual scales are not supported");
  fields.expect("shared_intermediate_size", 0, "shared experts are not supported in this family");
  for (const char* const unused : {"shared_moe_mode", "mlp_intermediate_size"})
    fields.find(unused);  // of shared experts, which are not there, and of dense layers
  const auto ones = static_cast<size_t>(config.num_hidden_layers);
  fields.expect("attn_type_list", std::vector<int64_t>(ones, 1), "linear attention is not supported");
}

void read(Fields& fields, ModelConfig& config) {
  read_decoder(fields, {.rope_theta = 5e6, .partial_rotary = rotated_part(fields)}, config);
  require_fields(fields, {"num_key_value_heads"});
  read_window(fields, config);
  config.qk_norm = QkNorm::whole;
  read_num_experts(fields, 1, config);
  read_experts_per_token(fields, config);
  fields.require("intermediate_size", config.moe_intermediate_size, 1, config_limits::kHidden);
  config.router.score = RouterRule::Score::sigmoid;
  config.router.normalise = config.router_bias = true;
  config.sparse.assign(static_cast<size_t>(config.num_hidden_layers), true);
  expect_published(fields, config);
  int64_t modules = 0, layers = 1;
  fields.find("use_mtp");
  fields.read("num_mtp_modules", modules, 0, config_limits::kLayers);
  fields.read("mtp_transformer_layers", layers, 0, config_limits::kLayers);
  pass_over_layers(modules * layers, config);
}

void tensors(const ModelConfig& config, TensorList& out) {
  decoder_tensors(config, out, [&](const std::string& prefix, int64_t layer) {
    const std::string published = prefix + ".block_sparse_moe", newer = prefix + ".mlp";
    expert_tensors(config,
                   {.mlp = published,
                    .newer_mlp = newer,
                    .gate = ".w1.weight",
                    .up = ".w3.weight",
                    .down = ".w2.weight"},
                   layer, out);
    TensorSpec& bias = out.vector(published + ".e_score_correction_bias", config.num_experts, Cut::whole,
                                  {Role::router_bias, layer});
    bias.stored.push_back({newer + ".e_score_correction_bias", {config.num_experts}});
    bias.format.dtype = DType::float32;
  });
}

}  // namespace

const Family families::minimax_m2{
    .architecture = "MiniMaxM2ForCausalLM",
    .model_type = "minimax_m2",
    .other_model_type = "minimax",
    .read = read,
    .tensors = tensors,
    .keeps = attention_keeps,
    .make = make_decoder,
};

}  // namespace moerun
