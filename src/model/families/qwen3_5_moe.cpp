// Qwen3.5-MoE (Hugging Face `modeling_qwen3_5_moe.py`), with vision and without: Qwen3.5-35B-A3B, -122B-A10B,
// -397B-A17B, Qwen3.6-35B-A3B.
#include "model/blocks/decoder_tensors.h"
#include "model/blocks/delta_net.h"
#include "model/config_parts.h"
#include "model/decoder.h"
#include "model/families.h"

namespace moerun {

namespace {

void read_text(Fields& fields, ModelConfig& config) {
  read_decoder(fields, {.partial_rotary = 0.25, .rotary_sections = true}, config);
  require_fields(fields, {"num_key_value_heads", "head_dim"});
  config.qk_norm = QkNorm::per_head;
  config.zero_centred_norms = config.attention_gate = true;
  fields.expect("attn_output_gate", true, "heads of this family have gates");
  fields.read("attention_bias", config.qkv_bias);
  config.output_bias = config.qkv_bias;
  read_delta_nets(fields, config);
  fields.expect("mamba_ssm_dtype", "float32", "states are kept in float32");
  read_num_experts(fields, 1, config);
  read_experts_per_token(fields, config);
  fields.require("moe_intermediate_size", config.moe_intermediate_size, 1, config_limits::kHidden);
  read_shared_expert(fields, config);
  config.router.normalise = true;
  fields.expect("norm_topk_prob", true, "the chosen experts' weights of this family sum to one");
  fields.expect("mlp_only_layers", nlohmann::json::array(), "dense layers are not supported in this family");
  fields.expect("decoder_sparse_step", 1, "dense layers are not supported in this family");
  config.sparse.assign(static_cast<size_t>(config.num_hidden_layers), true);
  for (const char* const unused :
       {"mtp_num_hidden_layers", "mtp_use_dedicated_embeddings", "intermediate_size"})
    fields.find(unused);  // of multi-token prediction, and of dense layers, which are not there
  config.passed_over.push_back({"mtp.", "of multi-token prediction"});
  config.passed_over.push_back({"model.visual.", "of the vision tower"});
}

void read_with_vision(Fields& fields, ModelConfig& config) {
  config.tensor_prefix = "model.language_model";
  read_text_config(fields, config, read_text);
}

}  // namespace

const Family families::qwen3_5_moe{
    .architecture = "Qwen3_5MoeForConditionalGeneration",
    .model_type = "qwen3_5_moe",
    .read = read_with_vision,
    .tensors = shared_expert_decoder_tensors,
    .keeps = delta_nets_keep,
    .make = make_decoder,
};

const Family families::qwen3_5_moe_text{
    .architecture = "Qwen3_5MoeForCausalLM",
    .model_type = "qwen3_5_moe_text",
    .read = read_text,
    .tensors = shared_expert_decoder_tensors,
    .keeps = delta_nets_keep,
    .make = make_decoder,
};

}  // namespace moerun
