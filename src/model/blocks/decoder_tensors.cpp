#include "model/blocks/decoder_tensors.h"

#include <fmt/format.h>

#include "model/blocks/attention.h"
#include "model/blocks/delta_net.h"
#include "model/blocks/dense_mlp.h"
#include "model/blocks/experts.h"

namespace moerun {

namespace {
constexpr const char* kHead = "lm_head.weight";

std::string embedding_of(const ModelConfig& config) { return config.tensor_prefix + ".embed_tokens.weight"; }

/// The other's numbers where the checkpoint has none of its own (`tie_weights` of transformers ≥ 5).
void tie(TensorSpec& spec, const std::string& other) {
  spec.tied = true;
  spec.stored.push_back({other, spec.stored.front().shape});
}

void before_layers(const ModelConfig& config, TensorList& out) {
  TensorSpec& table =
      out.matrix(embedding_of(config), config.vocab_size, config.hidden_size, Cut::whole, {Role::embedding});
  if (config.tie_word_embeddings) tie(table, kHead);
}

void attention_and_norms(const ModelConfig& config, const std::string& prefix, int64_t layer,
                         TensorList& out) {
  out.norm(prefix + ".input_layernorm.weight", config.hidden_size, {Role::input_norm, layer});
  if (config.is_delta(layer))
    delta_net_tensors(config, prefix + ".linear_attn", layer, out);
  else
    attention_tensors(config, prefix + ".self_attn", layer, out);
  out.norm(prefix + ".post_attention_layernorm.weight", config.hidden_size,
           {Role::post_attention_norm, layer});
}

void behind_layers(const ModelConfig& config, TensorList& out) {
  out.norm(config.tensor_prefix + ".norm.weight", config.hidden_size, {Role::final_norm});
  TensorSpec& head =
      out.matrix("lm_head.weight", config.vocab_size, config.hidden_size, Cut::whole, {Role::lm_head});
  if (config.tie_word_embeddings) {
    tie(head, embedding_of(config));
    head.drawn_as = embedding_of(config);
  }
  if (config.head_bias)
    out.vector("lm_head.bias", config.vocab_size, Cut::whole, {Role::lm_head_bias}).format.dtype =
        DType::float32;
}

}  // namespace

void decoder_tensors(const ModelConfig& config, TensorList& out, const SparseMlpTensors& sparse_mlp) {
  before_layers(config, out);
  for (int64_t layer = 0; layer < config.num_hidden_layers; ++layer) {
    const std::string prefix = fmt::format("{}.layers.{}", config.tensor_prefix, layer);
    attention_and_norms(config, prefix, layer, out);
    if (config.is_sparse(layer))
      sparse_mlp(prefix, layer);
    else
      dense_mlp_tensors(config, prefix + ".mlp", layer, kNoExpert, out);
  }
  behind_layers(config, out);
}

void shared_expert_decoder_tensors(const ModelConfig& config, TensorList& out) {
  decoder_tensors(config, out, [&](const std::string& prefix, int64_t layer) {
    const std::string mlp = prefix + ".mlp";
    expert_tensors(config, qwen_experts(mlp), layer, out);
    dense_mlp_tensors(config, mlp + ".shared_expert", layer, kSharedExpert, out);
    out.matrix(mlp + ".shared_expert_gate.weight", 1, config.hidden_size, Cut::whole,
               {Role::shared_gate, layer, kSharedExpert});
  });
}

}  // namespace moerun
