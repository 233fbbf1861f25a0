// OLMoE (Hugging Face `modeling_olmoe.py`): OLMoE-1B-7B.
#include <fmt/format.h>

#include "model/blocks/attention.h"
#include "model/blocks/decoder_tensors.h"
#include "model/blocks/experts.h"
#include "model/config_parts.h"
#include "model/decoder.h"
#include "model/families.h"

namespace moerun {

namespace {

void read(Fields& fields, ModelConfig& config) {
  read_decoder(fields, {.rms_norm_eps = 1e-5}, config);
  config.qk_norm = QkNorm::whole;
  // `OlmoeAttention` norms a query of hidden_size elements, whatever head_dim says.
  if (config.num_attention_heads * config.head_dim != config.hidden_size)
    fields.fault(
        fmt::format("head_dim {} of num_attention_heads {} is not hidden_size {}, over which queries "
                    "of this family are normed",
                    config.head_dim, config.num_attention_heads, config.hidden_size));
  fields.read("attention_bias", config.qkv_bias);
  config.output_bias = config.qkv_bias;
  if (const nlohmann::json* const clip = fields.find("clip_qkv"))
    fields.fault(
        fmt::format("clip_qkv is {}, and clipped queries, keys and values are not supported", shown(*clip)));
  read_num_experts(fields, 1, config);
  read_experts_per_token(fields, config);
  fields.require("intermediate_size", config.moe_intermediate_size, 1, config_limits::kHidden);
  fields.read("norm_topk_prob", config.router.normalise);
  config.sparse.assign(static_cast<size_t>(config.num_hidden_layers), true);
}

void tensors(const ModelConfig& config, TensorList& out) {
  decoder_tensors(config, out, [&](const std::string& prefix, int64_t layer) {
    expert_tensors(config, qwen_experts(prefix + ".mlp"), layer, out);
  });
}

}  // namespace

const Family families::olmoe{
    .architecture = "OlmoeForCausalLM",
    .model_type = "olmoe",
    .read = read,
    .tensors = tensors,
    .keeps = attention_keeps,
    .make = make_decoder,
};

}  // namespace moerun
