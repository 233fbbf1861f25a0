// Qwen3-Next (Hugging Face `modeling_qwen3_next.py`): Qwen3-Next-80B-A3B.
#include "model/blocks/decoder_tensors.h"
#include "model/blocks/delta_net.h"
#include "model/config_parts.h"
#include "model/decoder.h"
#include "model/families.h"

namespace moerun {

namespace {

void read(Fields& fields, ModelConfig& config) {
  read_decoder(fields, {.partial_rotary = 0.25}, config);
  require_fields(fields, {"num_key_value_heads", "head_dim"});
  config.qk_norm = QkNorm::per_head;
  config.zero_centred_norms = config.attention_gate = true;
  fields.read("attention_bias", config.qkv_bias);
  config.output_bias = config.qkv_bias;
  fields.expect("use_sliding_window", false, "sliding-window attention is not supported");
  fields.find("sliding_window");  // of no effect without use_sliding_window
  read_delta_nets(fields, config);
  config.delta.by_key_heads = true;
  read_num_experts(fields, 0, config);
  read_experts_per_token(fields, config);
  fields.require("moe_intermediate_size", config.moe_intermediate_size, 1, config_limits::kHidden);
  fields.require("intermediate_size", config.intermediate_size, 1, config_limits::kHidden);
  read_shared_expert(fields, config);
  config.router.normalise = true;
  fields.read("norm_topk_prob", config.router.normalise);
  read_sparse_layers(fields, config);
  config.passed_over.push_back({"mtp.", "of multi-token prediction"});
}

}  // namespace

const Family families::qwen3_next{
    .architecture = "Qwen3NextForCausalLM",
    .model_type = "qwen3_next",
    .read = read,
    .tensors = shared_expert_decoder_tensors,
    .keeps = delta_nets_keep,
    .make = make_decoder,
};

}  // namespace moerun
