// Qwen3-MoE (Hugging Face `modeling_qwen3_moe.py`): Qwen3-30B-A3B, Qwen3-235B-A22B, Qwen3-Coder.
#include <fmt/format.h>

#include <algorithm>

#include "model/config_parts.h"
#include "model/families.h"

namespace moerun {

namespace {

/// transformers ≥ 5 writes `num_local_experts` for what was published as `num_experts`.
void read_num_experts(Fields& fields, int64_t& num_experts) {
  const nlohmann::json* const published = fields.find("num_experts");
  const nlohmann::json* const newer = fields.find("num_local_experts");
  if (published && newer && *published != *newer)
    fields.fault(fmt::format("num_experts is {} and num_local_experts is {}; one of them must go",
                             shown(*published), shown(*newer)));
  fields.require(newer && !published ? "num_local_experts" : "num_experts", num_experts, 0,
                 config_limits::kExperts);
}

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

  read_num_experts(fields, config.num_experts);
  fields.require("num_experts_per_tok", config.num_experts_per_tok, 1, config_limits::kExperts);
  fields.require("moe_intermediate_size", config.moe_intermediate_size, 1, config_limits::kHidden);
  fields.require("intermediate_size", config.intermediate_size, 1, config_limits::kHidden);
  fields.read("norm_topk_prob", config.norm_topk_prob);
  read_sparse_layers(fields, config);
}

}  // namespace

const Family families::qwen3_moe{
    .architecture = "Qwen3MoeForCausalLM",
    .model_type = "qwen3_moe",
    .read = read,
};

}  // namespace moerun
