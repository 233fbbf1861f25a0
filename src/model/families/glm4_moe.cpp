// GLM-4-MoE (Hugging Face `modeling_glm4_moe.py`): GLM-4.5, GLM-4.5-Air, GLM-4.6, GLM-4.7.
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

/// `Glm4MoeTopkRouter`.
void read_router(Fields& fields, ModelConfig& config) {
  RouterRule& rule = config.router;
  rule.score = RouterRule::Score::sigmoid;
  config.router_bias = config.router_float32 = true;
  fields.expect("scoring_func", "sigmoid", "the scores of this family are sigmoids");
  fields.expect("topk_method", "noaux_tc", "other ways to choose experts are not supported");
  rule.normalise = true;
  fields.read("norm_topk_prob", rule.normalise);
  rule.added_to_sum = 1e-20F;
  double scale = 1;
  if (fields.read("routed_scaling_factor", scale) && !(std::isfinite(scale) && scale > 0))
    fields.fault(fmt::format("routed_scaling_factor is {}, and must be more than 0", scale));
  rule.scale = static_cast<float>(scale);
  int64_t groups = 1, taken = 1;
  fields.read("n_group", groups, 1, config_limits::kExperts);
  fields.read("topk_group", taken, 1, config_limits::kExperts);
  rule.num_groups = static_cast<int32_t>(groups);
  rule.groups_taken = static_cast<int32_t>(taken);
  if (groups == 1 && taken == 1) return;
  // A group's score is the sum of its two best.
  if (config.num_experts % groups != 0 || config.num_experts / groups < 2)
    fields.fault(
        fmt::format("n_group {} does not cut n_routed_experts {} into equal groups of two or more experts",
                    groups, config.num_experts));
  else if (taken > groups || config.num_experts / groups * taken < config.num_experts_per_tok)
    fields.fault(
        fmt::format("topk_group {} of n_group {} groups do not hold num_experts_per_tok {} of {} experts",
                    taken, groups, config.num_experts_per_tok, config.num_experts));
}

void read(Fields& fields, ModelConfig& config) {
  read_decoder(fields, {.rms_norm_eps = 1e-5, .partial_rotary = 0.5}, config);
  require_fields(fields, {"num_key_value_heads"});
  fields.read("attention_bias", config.qkv_bias);
  bool normed = false;
  fields.read("use_qk_norm", normed);
  config.qk_norm = normed ? QkNorm::per_head : QkNorm::none;
  read_alias(fields, "n_routed_experts", "num_local_experts", {1, config_limits::kExperts},
             config.num_experts);
  read_experts_per_token(fields, config);
  fields.require("moe_intermediate_size", config.moe_intermediate_size, 1, config_limits::kHidden);
  fields.require("intermediate_size", config.intermediate_size, 1, config_limits::kHidden);
  int64_t shared = 0, dense = 1, ahead = 0;
  fields.require("n_shared_experts", shared, 0, config_limits::kExperts);
  config.shared_intermediate_size = shared * config.moe_intermediate_size;
  read_router(fields, config);
  fields.read("first_k_dense_replace", dense, 0, config_limits::kLayers);
  for (int64_t layer = 0; layer < config.num_hidden_layers; ++layer) config.sparse.push_back(layer >= dense);
  if (fields.find("num_mtp_layers"))
    read_alias(fields, "num_nextn_predict_layers", "num_mtp_layers", {0, config_limits::kLayers}, ahead);
  else
    fields.read("num_nextn_predict_layers", ahead, 0, config_limits::kLayers);
  pass_over_layers(ahead, config);
}

void tensors(const ModelConfig& config, TensorList& out) {
  decoder_tensors(config, out, [&](const std::string& prefix, int64_t layer) {
    const std::string mlp = prefix + ".mlp";
    expert_tensors(config, qwen_experts(mlp), layer, out);
    out.vector(mlp + ".gate.e_score_correction_bias", config.num_experts, Cut::whole,
               {Role::router_bias, layer})
        .format.dtype = DType::float32;
    if (config.shared_intermediate_size > 0)
      dense_mlp_tensors(config, mlp + ".shared_experts", layer, kSharedExpert, out);
  });
}

}  // namespace

const Family families::glm4_moe{
    .architecture = "Glm4MoeForCausalLM",
    .model_type = "glm4_moe",
    .read = read,
    .tensors = tensors,
    .keeps = attention_keeps,
    .make = make_decoder,
};

}  // namespace moerun
