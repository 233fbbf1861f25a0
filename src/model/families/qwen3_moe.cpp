// Qwen3-MoE (Hugging Face `modeling_qwen3_moe.py`): Qwen3-30B-A3B, Qwen3-235B-A22B, Qwen3-Coder.
#include "model/blocks/attention.h"
#include "model/blocks/decoder_tensors.h"
#include "model/blocks/experts.h"
#include "model/config_parts.h"
#include "model/decoder.h"
#include "model/families.h"

namespace moerun {

namespace {

void read(Fields& fields, ModelConfig& config) {
  read_decoder(fields, {}, config);
  config.qk_norm = QkNorm::per_head;
  fields.expect("use_qk_norm", true, "queries and keys of this family are normed");
  fields.read("attention_bias", config.qkv_bias);
  config.output_bias = config.qkv_bias;
  fields.expect("qkv_bias", config.qkv_bias, "attention_bias says otherwise");
  fields.expect("use_sliding_window", false, "sliding-window attention is not supported");
  fields.find("sliding_window");  // of no effect without use_sliding_window

  read_num_experts(fields, 0, config);
  read_experts_per_token(fields, config);
  fields.require("moe_intermediate_size", config.moe_intermediate_size, 1, config_limits::kHidden);
  fields.require("intermediate_size", config.intermediate_size, 1, config_limits::kHidden);
  fields.read("norm_topk_prob", config.router.normalise);
  read_sparse_layers(fields, config);
}

void tensors(const ModelConfig& config, TensorList& out) {
  decoder_tensors(config, out, [&](const std::string& prefix, int64_t layer) {
    expert_tensors(config, qwen_experts(prefix + ".mlp"), layer, out);
  });
}

}  // namespace

const Family families::qwen3_moe{
    .architecture = "Qwen3MoeForCausalLM",
    .model_type = "qwen3_moe",
    .read = read,
    .tensors = tensors,
    .keeps = attention_keeps,
    .make = make_decoder,
};

}  // namespace moerun
