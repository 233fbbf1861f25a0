// Qwen3-MoE (Hugging Face `modeling_qwen3_moe.py`): Qwen3-30B-A3B, Qwen3-235B-A22B, Qwen3-Coder.
#include <fmt/format.h>

#include <algorithm>

#include "model/blocks/decoder_tensors.h"
#include "model/config_parts.h"
#include "model/families.h"
#include "model/model.h"

namespace moerun {

namespace {

/// `Qwen3MoeDecoderLayer`: sparse unless listed, without experts, or skipped by the step.
void read_sparse_layers(Fields& fields, ModelConfig& config) {
  int64_t step = 1;
  std::vector<int64_t> dense;
  fields.read("decoder_sparse_step", step, 1, config_limits::kLayers);
  fields.read("mlp_only_layers", dense);
  for (const int64_t layer : dense)
    if (layer < 0 || layer >= config.num_hidden_layers)
      fields.fault(fmt::format("mlp_only_layers names layer {} of {}", layer, config.num_hidden_layers));
  for (int64_t layer = 0; layer < config.num_hidden_layers; ++layer)
    config.sparse.push_back(config.num_experts > 0 && (layer + 1) % step == 0 &&
                            std::find(dense.begin(), dense.end(), layer) == dense.end());
}

void read(Fields& fields, ModelConfig& config) {
  constexpr double kTheta = 10000;
  read_decoder(fields, kTheta, config);
  config.qk_norm = QkNorm::per_head;
  fields.expect("use_qk_norm", true, "queries and keys of this family are normed");
  fields.read("attention_bias", config.attention_bias);
  fields.expect("qkv_bias", config.attention_bias, "attention_bias says otherwise");
  fields.expect("use_sliding_window", false, "sliding-window attention is not supported");
  fields.find("sliding_window");  // of no effect without use_sliding_window

  read_num_experts(fields, 0, config);
  fields.require("num_experts_per_tok", config.num_experts_per_tok, 1, config_limits::kExperts);
  fields.require("moe_intermediate_size", config.moe_intermediate_size, 1, config_limits::kHidden);
  fields.require("intermediate_size", config.intermediate_size, 1, config_limits::kHidden);
  fields.read("norm_topk_prob", config.norm_topk_prob);
  read_sparse_layers(fields, config);
}

void tensors(const ModelConfig& config, TensorList& out) {
  decoder_begins(config, out);
  for (int64_t layer = 0; layer < config.num_hidden_layers; ++layer) {
    const std::string prefix = fmt::format("model.layers.{}", layer), mlp = prefix + ".mlp";
    layer_with_attention(config, prefix, layer, out);
    if (config.is_sparse(layer))
      expert_tensors(config,
                     {.mlp = mlp,
                      .newer_mlp = mlp,
                      .gate = ".gate_proj.weight",
                      .up = ".up_proj.weight",
                      .down = ".down_proj.weight"},
                     layer, out);
    else
      dense_mlp_tensors(config, mlp, layer, out);
  }
  decoder_ends(config, out);
}

/// Pre-norm attention, then experts or a dense MLP.
class Qwen3Moe : public Model {
 public:
  using Model::Model;

 private:
  void layer(const Step& step, size_t index, const AddRmsNormArgs& then) override {
    const LayerWeights& weights = weights_of(index);
    if (step.any()) attention_.run(step, weights, cache_of(index));
    if (weights.sparse)
      experts_.run(step, index, weights, then);
    else if (step.any())
      dense_mlp_.run(step, weights, then);
  }
};

}  // namespace

const Family families::qwen3_moe{
    .architecture = "Qwen3MoeForCausalLM",
    .model_type = "qwen3_moe",
    .read = read,
    .tensors = tensors,
    .keeps = attention_keeps,
    .make = [](ModelParts parts) -> std::unique_ptr<Model> {
      return std::make_unique<Qwen3Moe>(std::move(parts));
    },
};

}  // namespace moerun
