// Qwen2-MoE (Hugging Face `modeling_qwen2_moe.py`): Qwen1.5-MoE-A2.7B, Qwen2-57B-A14B.
#include "model/blocks/attention.h"
#include "model/blocks/decoder_tensors.h"
#include "model/config_parts.h"
#include "model/decoder.h"
#include "model/families.h"

namespace moerun {

namespace {

void read(Fields& fields, ModelConfig& config) {
  read_decoder(fields, {}, config);
  require_fields(fields, {"num_key_value_heads"});
  config.qkv_bias = true;
  fields.read("qkv_bias", config.qkv_bias);
  fields.expect("use_sliding_window", false, "sliding-window attention is not supported");
  fields.find("sliding_window");  // of no effect without use_sliding_window
  read_num_experts(fields, 0, config);
  read_experts_per_token(fields, config);
  fields.require("moe_intermediate_size", config.moe_intermediate_size, 1, config_limits::kHidden);
  fields.require("intermediate_size", config.intermediate_size, 1, config_limits::kHidden);
  read_shared_expert(fields, config);
  fields.read("norm_topk_prob", config.router.normalise);
  read_sparse_layers(fields, config);
}

}  // namespace

const Family families::qwen2_moe{
    .architecture = "Qwen2MoeForCausalLM",
    .model_type = "qwen2_moe",
    .read = read,
    .tensors = shared_expert_decoder_tensors,
    .keeps = attention_keeps,
    .make = make_decoder,
};

}  // namespace moerun
