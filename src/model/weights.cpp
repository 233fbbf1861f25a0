#include "model/weights.h"

#include <fmt/format.h>

namespace moerun {

namespace {

void count(const HostMatrix& part, const LoadProgress& progress) {
  if (progress) progress(static_cast<uint64_t>(part.rows * part.cols) * size_of(part.dtype));
}

std::string layer_prefix(int64_t layer) { return fmt::format("model.layers.{}", layer); }
std::string expert_prefix(const std::string& mlp, int32_t expert) {
  return fmt::format("{}.experts.{}", mlp, expert);
}

/// One expert's three matrices, or a dense layer's.
void load_mlp(Device& device, const WeightSource& source, const std::string& prefix, const LayerWeights& out,
              int64_t slot, const LoadProgress& progress) {
  const int64_t hidden = out.down.out_features, width = out.down.in_features;
  const auto fill = [&](const Matrix& matrix, int64_t row0, const char* name, int64_t rows, int64_t cols) {
    const HostMatrix part = source.get(prefix + name, rows, cols);
    device.load(matrix, slot, row0, part);
    count(part, progress);
  };
  fill(out.gate_up, 0, ".gate_proj.weight", width, hidden);
  fill(out.gate_up, width, ".up_proj.weight", width, hidden);
  fill(out.down, 0, ".down_proj.weight", hidden, width);
}

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
  Tensor embedding() {
    const Tensor out =
        device_.host_tensor(config_.vocab_size, config_.hidden_size, device_.dtype(), "embedding");
    fill(out, 0, source_.get("model.embed_tokens.weight", out.rows, out.cols));
    return out;
  }
  Tensor vector(const std::string& name, int64_t cols) { return tensor(name, 1, cols, "norms"); }

  LayerWeights layer(int64_t index) {
    const std::string prefix = layer_prefix(index);
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
    const int64_t count = shard_.num_slots();
    out.router = tensor(prefix + ".gate.weight", config_.num_experts, hidden, "router");
    out.gate_up = device_.matrix(Matrix::Kind::expert_gate_up, count, 2 * width, hidden, "experts");
    out.down = device_.matrix(Matrix::Kind::expert_down, count, hidden, width, "experts");
    int64_t slot = 0;
    for (const int32_t expert : shard_.local_experts)
      load_mlp(device_, source_, expert_prefix(prefix, expert), out, slot++, progress_);
  }

  void dense(const std::string& prefix, LayerWeights& out) {
    const int64_t width = config_.intermediate_size, hidden = config_.hidden_size;
    out.gate_up = device_.matrix(Matrix::Kind::gate_up, 1, 2 * width, hidden, "dense layers");
    out.down = device_.matrix(Matrix::Kind::plain, 1, hidden, width, "dense layers");
    load_mlp(device_, source_, prefix, out, 0, progress_);
  }

  void fill(const Tensor& tensor, int64_t row0, const HostMatrix& part) {
    device_.load(tensor, row0, part);
    count(part, progress_);
  }
  void fill(const Matrix& matrix, int64_t index, int64_t row0, const HostMatrix& part) {
    device_.load(matrix, index, row0, part);
    count(part, progress_);
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
  weights.embedding = loader.embedding();
  for (int64_t layer = 0; layer < config.num_hidden_layers; ++layer)
    weights.layers.push_back(loader.layer(layer));
  weights.final_norm = loader.vector("model.norm.weight", config.hidden_size);
  weights.lm_head = loader.lm_head();
  device.synchronize();
  return weights;
}

void load_experts(Device& device, const WeightSource& source, const Weights& weights,
                  std::span<const ExpertPlace> places, const LoadProgress& progress) {
  for (const ExpertPlace& place : places)
    load_mlp(device, source, expert_prefix(layer_prefix(place.layer) + ".mlp", place.expert),
             weights.layers[static_cast<size_t>(place.layer)], place.slot, progress);
  device.synchronize();
}

}  // namespace moerun
