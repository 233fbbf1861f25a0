#include "model/blocks/decoder_tensors.h"

#include "model/blocks/attention.h"

namespace moerun {

namespace {
constexpr const char *kEmbedding = "model.embed_tokens.weight", *kHead = "lm_head.weight";

/// The other's numbers where the checkpoint has none of its own (`tie_weights` of transformers ≥ 5).
void tie(TensorSpec& spec, const char* other) {
  spec.tied = true;
  spec.stored.push_back({other, spec.stored.front().shape});
}

}  // namespace

void decoder_begins(const ModelConfig& config, TensorList& out) {
  TensorSpec& table =
      out.matrix(kEmbedding, config.vocab_size, config.hidden_size, Cut::whole, {Role::embedding});
  if (config.tie_word_embeddings) tie(table, kHead);
}

void layer_with_attention(const ModelConfig& config, const std::string& prefix, int64_t layer,
                          TensorList& out) {
  out.vector(prefix + ".input_layernorm.weight", config.hidden_size, Cut::whole, {Role::input_norm, layer});
  attention_tensors(config, prefix + ".self_attn", layer, out);
  out.vector(prefix + ".post_attention_layernorm.weight", config.hidden_size, Cut::whole,
             {Role::post_attention_norm, layer});
}

void decoder_ends(const ModelConfig& config, TensorList& out) {
  out.vector("model.norm.weight", config.hidden_size, Cut::whole, {Role::final_norm});
  TensorSpec& head =
      out.matrix("lm_head.weight", config.vocab_size, config.hidden_size, Cut::whole, {Role::lm_head});
  if (config.tie_word_embeddings) {
    tie(head, kEmbedding);
    head.drawn_as = kEmbedding;
  }
  if (config.head_bias)
    out.vector("lm_head.bias", config.vocab_size, Cut::whole, {Role::lm_head_bias}).format.dtype =
        DType::float32;
}

}  // namespace moerun
