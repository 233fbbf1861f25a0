#include "model/weights.h"

#include <fmt/format.h>

namespace moerun {

namespace {

/// Brings tensors of one rank's part to the device.
class Loader {
 public:
  Loader(Device& device, const ModelConfig& config, const ModelShard& shard, const WeightSource& source,
         const LoadProgress& progress)
      : device_(device), config_(config), shard_(shard), source_(source), progress_(progress) {}

  Tensor tensor(const std::string& name, int64_t rows, int64_t cols, const char* what) {
    const Tensor out = device_.tensor(rows, cols, device_.dtype(), what);
    fill(out, 0, source_.get(name, rows, cols));
    return out;
  }
  Tensor vector(const std::string& name, int64_t cols) { return tensor(name, 1, cols, "norms"); }

  LayerWeights layer(int64_t index) {
    const std::string prefix = fmt::format("model.layers.{}", index);
    LayerWeights out;
    out.sparse = config_.is_sparse(index);
    out.input_norm = vector(prefix + ".input_layernorm.weight", config_.hidden_size);
    attention(prefix + ".self_attn", out);
    out.post_attention_norm = vector(prefix + ".post_attention_layernorm.weight", config_.hidden_size);
    if (out.sparse)
      experts(prefix + ".mlp", out);
    else
      dense(prefix + ".mlp", out);
    return out;
  }

  Matrix lm_head() {
    const char* const name = config_.tie_word_embeddings ? "model.embed_tokens.weight" : "lm_head.weight";
    const Matrix out =
        device_.matrix(Matrix::Kind::plain, 1, config_.vocab_size, config_.hidden_size, "LM head");
    fill(out, 0, 0, source_.get(name, config_.vocab_size, config_.hidden_size));
    return out;
  }

 private:
  void attention(const std::string& prefix, LayerWeights& out) {
    const int64_t d = config_.head_dim, hidden = config_.hidden_size;
    const int64_t q_rows = shard_.num_heads(config_) * d, kv_rows = shard_.num_kv_heads(config_) * d;
    const int64_t width = shard_.qkv_width(config_);
    out.qkv = device_.matrix(Matrix::Kind::plain, 1, width, hidden, "attention");
    if (config_.attention_bias) out.qkv_bias = device_.tensor(1, width, device_.dtype(), "attention");
    struct Projection {
      const char* name;
      int64_t heads, first_head, rows, at;
    };
    const int64_t kv_heads = config_.num_key_value_heads, first_kv = shard_.first_kv_head(config_);
    for (const Projection& p :
         {Projection{"q_proj", config_.num_attention_heads, shard_.first_head(config_), q_rows, 0},
          Projection{"k_proj", kv_heads, first_kv, kv_rows, q_rows},
          Projection{"v_proj", kv_heads, first_kv, kv_rows, q_rows + kv_rows}}) {
      const int64_t first = p.first_head * d;
      const std::string name = fmt::format("{}.{}", prefix, p.name);
      const HostMatrix whole = source_.get(name + ".weight", p.heads * d, hidden);
      fill(out.qkv, 0, p.at, part_of(whole, first, first + p.rows, 0, hidden));
      if (!config_.attention_bias) continue;
      const HostMatrix bias = source_.get(name + ".bias", 1, p.heads * d);
      const Tensor place{
          static_cast<char*>(out.qkv_bias.data) + static_cast<size_t>(p.at) * size_of(device_.dtype()),
          device_.dtype(), 1, p.rows};
      fill(place, 0, part_of(bias, 0, 1, first, first + p.rows));
    }
    out.q_norm = vector(prefix + ".q_norm.weight", d);
    out.k_norm = vector(prefix + ".k_norm.weight", d);
    out.output = device_.matrix(Matrix::Kind::plain, 1, hidden, q_rows, "attention");
    const int64_t first = shard_.first_head(config_) * d;
    const HostMatrix whole = source_.get(prefix + ".o_proj.weight", hidden, config_.num_attention_heads * d);
    fill(out.output, 0, 0, part_of(whole, 0, hidden, first, first + q_rows));
    if (config_.attention_bias) out.output_bias = vector(prefix + ".o_proj.bias", hidden);
  }

  void experts(const std::string& prefix, LayerWeights& out) {
    const int64_t width = config_.moe_intermediate_size, hidden = config_.hidden_size;
    const auto count = static_cast<int64_t>(shard_.local_experts.size());
    out.router = tensor(prefix + ".gate.weight", config_.num_experts, hidden, "router");
    out.gate_up = device_.matrix(Matrix::Kind::expert_gate_up, count, 2 * width, hidden, "experts");
    out.down = device_.matrix(Matrix::Kind::expert_down, count, hidden, width, "experts");
    for (int64_t slot = 0; slot < count; ++slot) {
      const int32_t expert = shard_.local_experts[static_cast<size_t>(slot)];
      mlp(fmt::format("{}.experts.{}", prefix, expert), slot, width, out);
    }
  }

  void dense(const std::string& prefix, LayerWeights& out) {
    const int64_t width = config_.intermediate_size, hidden = config_.hidden_size;
    out.gate_up = device_.matrix(Matrix::Kind::gate_up, 1, 2 * width, hidden, "dense layers");
    out.down = device_.matrix(Matrix::Kind::plain, 1, hidden, width, "dense layers");
    mlp(prefix, 0, width, out);
  }

  void mlp(const std::string& prefix, int64_t slot, int64_t width, LayerWeights& out) {
    const int64_t hidden = config_.hidden_size;
    fill(out.gate_up, slot, 0, source_.get(prefix + ".gate_proj.weight", width, hidden));
    fill(out.gate_up, slot, width, source_.get(prefix + ".up_proj.weight", width, hidden));
    fill(out.down, slot, 0, source_.get(prefix + ".down_proj.weight", hidden, width));
  }

  void fill(const Tensor& tensor, int64_t row0, const HostMatrix& part) {
    device_.load(tensor, row0, part);
    count(part);
  }
  void fill(const Matrix& matrix, int64_t index, int64_t row0, const HostMatrix& part) {
    device_.load(matrix, index, row0, part);
    count(part);
  }
  void count(const HostMatrix& part) {
    if (progress_) progress_(static_cast<uint64_t>(part.rows * part.cols) * size_of(part.dtype));
  }

  Device& device_;
  const ModelConfig& config_;
  const ModelShard& shard_;
  const WeightSource& source_;
  const LoadProgress& progress_;
};

}  // namespace

Weights load_weights(Device& device, const ModelConfig& config, const ModelShard& shard,
                     const WeightSource& source, const LoadProgress& progress) {
  Loader loader(device, config, shard, source, progress);
  Weights weights;
  weights.embedding =
      loader.tensor("model.embed_tokens.weight", config.vocab_size, config.hidden_size, "embedding");
  for (int64_t layer = 0; layer < config.num_hidden_layers; ++layer)
    weights.layers.push_back(loader.layer(layer));
  weights.final_norm = loader.vector("model.norm.weight", config.hidden_size);
  weights.lm_head = loader.lm_head();
  device.synchronize();
  return weights;
}

}  // namespace moerun
