// Mixtral (Hugging Face `modeling_mixtral.py`): Mixtral-8x7B, Mixtral-8x22B.
#include <fmt/format.h>

#include "model/blocks/decoder_tensors.h"
#include "model/config_parts.h"
#include "model/families.h"
#include "model/model.h"
#include "model/rope.h"

namespace moerun {

namespace {

/// A window that every sequence fits into cuts nothing off.
void read_window(Fields& fields, const ModelConfig& config) {
  int64_t window = 0;
  if (!fields.read("sliding_window", window, 1, INT64_MAX) || window >= most_positions(config)) return;
  fields.fault(
      fmt::format("sliding_window is {}, less than the model's {} positions, and sliding-window attention is "
                  "not supported",
                  window, most_positions(config)));
}

void read(Fields& fields, ModelConfig& config) {
  constexpr double kTheta = 1e6, kEps = 1e-5;
  config.rms_norm_eps = kEps;
  read_decoder(fields, kTheta, config);
  read_window(fields, config);
  for (const char* const bias : {"attention_bias", "qkv_bias"})
    fields.expect(bias, false, "this family's projections have no biases");
  fields.expect("use_qk_norm", false, "queries and keys of this family are not normed");
  read_num_experts(fields, 1, config);
  fields.require("num_experts_per_tok", config.num_experts_per_tok, 1, config_limits::kExperts);
  fields.require("intermediate_size", config.moe_intermediate_size, 1, config_limits::kHidden);
  // The softmax over the chosen experts' logits is that over all, divided by the chosen ones' sum.
  fields.expect("norm_topk_prob", true, "the chosen experts' weights of this family sum to one");
  config.norm_topk_prob = true;
  config.sparse.assign(static_cast<size_t>(config.num_hidden_layers), true);
}

void tensors(const ModelConfig& config, TensorList& out) {
  decoder_begins(config, out);
  for (int64_t layer = 0; layer < config.num_hidden_layers; ++layer) {
    const std::string prefix = fmt::format("model.layers.{}", layer);
    layer_with_attention(config, prefix, layer, out);
    expert_tensors(config,
                   {.mlp = prefix + ".block_sparse_moe",
                    .newer_mlp = prefix + ".mlp",
                    .gate = ".w1.weight",
                    .up = ".w3.weight",
                    .down = ".w2.weight"},
                   layer, out);
  }
  decoder_ends(config, out);
}

/// Pre-norm attention, then experts in every layer.
class Mixtral : public Model {
 public:
  using Model::Model;

 private:
  void layer(const Step& step, size_t index, const AddRmsNormArgs& then) override {
    if (step.any()) attention_.run(step, weights_of(index), cache_of(index));
    experts_.run(step, index, weights_of(index), then);
  }
};

}  // namespace

const Family families::mixtral{
    .architecture = "MixtralForCausalLM",
    .model_type = "mixtral",
    .read = read,
    .tensors = tensors,
    .keeps = attention_keeps,
    .make = [](ModelParts parts) -> std::unique_ptr<Model> {
      return std::make_unique<Mixtral>(std::move(parts));
    },
};

}  // namespace moerun
