// Mixtral (Hugging Face `modeling_mixtral.py`): Mixtral-8x7B, Mixtral-8x22B.
#include "model/blocks/attention.h"
#include "model/blocks/decoder_tensors.h"
#include "model/blocks/experts.h"
#include "model/config_parts.h"
#include "model/decoder.h"
#include "model/families.h"

namespace moerun {

namespace {

void read(Fields& fields, ModelConfig& config) {
  read_decoder(fields, {.rope_theta = 1e6, .rms_norm_eps = 1e-5}, config);
  read_window(fields, config);
  for (const char* const bias : {"attention_bias", "qkv_bias"})
    fields.expect(bias, false, "this family's projections have no biases");
  fields.expect("use_qk_norm", false, "queries and keys of this family are not normed");
  read_num_experts(fields, 1, config);
  read_experts_per_token(fields, config);
  fields.require("intermediate_size", config.moe_intermediate_size, 1, config_limits::kHidden);
  // The softmax over the chosen experts' logits is that over all, divided by the chosen ones' sum.
  fields.expect("norm_topk_prob", true, "the chosen experts' weights of this family sum to one");
  config.router.normalise = true;
  config.sparse.assign(static_cast<size_t>(config.num_hidden_layers), true);
}

void tensors(const ModelConfig& config, TensorList& out) {
  decoder_tensors(config, out, [&](const std::string& prefix, int64_t layer) {
    expert_tensors(config,
                   {.mlp = prefix + ".block_sparse_moe",
                    .newer_mlp = prefix + ".mlp",
                    .gate = ".w1.weight",
                    .up = ".w3.weight",
                    .down = ".w2.weight"},
                   layer, out);
  });
}

}  // namespace

const Family families::mixtral{
    .architecture = "MixtralForCausalLM",
    .model_type = "mixtral",
    .read = read,
    .tensors = tensors,
    .keeps = attention_keeps,
    .make = make_decoder,
};

}  // namespace moerun
