#include "model/blocks/attention.h"

#include <cmath>

#include "model/rope.h"

namespace moerun {

AttentionBlock::AttentionBlock(const ModelParts& parts) : parts_(parts) {
  Device& device = *parts.device;
  const ModelConfig& config = *parts.config;
  const DType dtype = device.dtype();
  const int64_t all = parts.part_rows() * parts.shard.tensor, positions = parts.limits.max_model_len;
  const int64_t q_width = parts.shard.num_heads(config) * config.head_dim;
  qkv_ = device.tensor(all, parts.shard.qkv_width(config), dtype, "activations");
  q_ = device.tensor(all, q_width, dtype, "activations");
  heads_ = device.tensor(all, q_width, dtype, "activations");

  if (config.qk_norm == QkNorm::whole) {
    const int64_t heads = parts.shard.num_heads(config) + parts.shard.num_kv_heads(config);
    squares_ = device.tensor(all, heads, DType::float32, "activations");
    all_squares_ = parts.shard.tensor == 1
                       ? squares_
                       : device.tensor(all * parts.shard.tensor, heads, DType::float32, "activations");
    scales_ = device.tensor(all, 2, DType::float32, "activations");
  }

  const RopeTables tables = rope_tables(config, positions);
  const auto upload = [&](const std::vector<float>& values) {
    const Tensor out = device.tensor(positions, config.rotary_dim() / 2, DType::float32, "rotary tables");
    device.copy_to_device(out.data, values.data(), out.bytes());
    device.synchronize();  // `values` may go
    return out;
  };
  cos_ = upload(tables.cos);
  sin_ = upload(tables.sin);
}

Tensor AttentionBlock::scales_of(int64_t n) {
  Device& device = *parts_.device;
  const ModelConfig& config = *parts_.config;
  const int tensor = parts_.shard.tensor;
  device.head_squares(qkv_.first(n), static_cast<int32_t>(config.head_dim), squares_.first(n));
  if (tensor > 1) parts_.tp->all_gather(squares_.first(n), all_squares_.first(n * tensor));
  device.qk_scales({.squares = all_squares_.first(n * tensor),
                    .tensor = tensor,
                    .num_heads = static_cast<int32_t>(config.num_attention_heads),
                    .num_kv_heads = static_cast<int32_t>(config.num_key_value_heads),
                    .head_dim = static_cast<int32_t>(config.head_dim),
                    .eps = parts_.eps(),
                    .out = scales_.first(n)});
  return scales_.first(n);
}

void AttentionBlock::run(const Step& step, const LayerWeights& layer, const KvLayer& kv) {
  Device& device = *parts_.device;
  const ModelConfig& config = *parts_.config;
  const int64_t n = step.plan.num_tokens;
  const auto num_heads = static_cast<int32_t>(parts_.shard.num_heads(config));
  const bool whole = parts_.shard.tensor == 1;
  const Tensor x = whole ? step.normed : step.hidden;
  if (!whole) parts_.tp->all_gather(step.normed, step.hidden);

  device.linear(x.first(n), layer.qkv, layer.qkv_bias.data ? &layer.qkv_bias : nullptr, qkv_.first(n));
  KvLayer kept = kv;
  if (kv.k.dtype == DType::e4m3) kept.k_scale = layer.kv_scale.key, kept.v_scale = layer.kv_scale.value;
  device.rope_and_cache(step.plan, {.qkv = qkv_.first(n),
                                    .gated = config.attention_gate,
                                    .q_norm = layer.q_norm,
                                    .k_norm = layer.k_norm,
                                    .scales = config.qk_norm == QkNorm::whole ? scales_of(n) : Tensor{},
                                    .cos = cos_,
                                    .sin = sin_,
                                    .interleaved = config.rope.interleaved,
                                    .q = q_.first(n),
                                    .kv = kept,
                                    .num_heads = num_heads,
                                    .eps = parts_.eps()});
  device.attention(step.plan, {.q = q_.first(n),
                               .kv = kept,
                               .out = heads_.first(n),
                               .num_heads = num_heads,
                               .scale = 1.0F / std::sqrt(static_cast<float>(config.head_dim))});
  if (config.attention_gate)
    device.gate_heads(
        {.qkv = qkv_.first(n), .heads = heads_.first(n), .head_dim = static_cast<int32_t>(config.head_dim)});
  const int32_t chunks = output_chunks(config) / parts_.shard.tensor;
  const AddRmsNormArgs then = step.norm(layer.post_attention_norm, parts_.eps());
  if (whole && !layer.output_bias.data)
    return device.linear_tree_add_rms_norm(heads_.first(n), layer.output, chunks, then);
  device.linear_tree(heads_.first(n), layer.output, chunks, (whole ? step.delta : step.hidden).first(n));
  if (!whole) parts_.tp->reduce_scatter(step.hidden, step.delta);
  if (layer.output_bias.data) device.add_bias(step.delta, layer.output_bias);
  device.add_rms_norm(then);
}

int64_t gathered_head_sums(const ModelConfig& config, const ModelShard& shard) {
  if (config.qk_norm != QkNorm::whole || shard.tensor == 1) return 0;
  return shard.tensor * (shard.num_heads(config) + shard.num_kv_heads(config));
}

void attention_tensors(const ModelConfig& config, const std::string& prefix, int64_t layer, TensorList& out) {
  const int64_t hidden = config.hidden_size, q = config.num_attention_heads * config.head_dim;
  const int64_t kv = config.num_key_value_heads * config.head_dim;
  const auto projection = [&](const char* name, int64_t rows, Cut cut, Role weight, Role bias) {
    out.matrix(prefix + name + ".weight", rows, hidden, cut, {weight, layer});
    if (config.qkv_bias) out.vector(prefix + name + ".bias", rows, cut, {bias, layer});
  };
  if (config.attention_gate)
    projection(".q_proj", 2 * q, Cut::even_rows, Role::q, Role::q_bias);  // a head's rows, then its gate's
  else
    projection(".q_proj", q, Cut::query_rows, Role::q, Role::q_bias);
  projection(".k_proj", kv, Cut::key_value_rows, Role::k, Role::k_bias);
  projection(".v_proj", kv, Cut::key_value_rows, Role::v, Role::v_bias);
  if (config.qk_norm == QkNorm::per_head) {
    out.norm(prefix + ".q_norm.weight", config.head_dim, {Role::q_norm, layer});
    out.norm(prefix + ".k_norm.weight", config.head_dim, {Role::k_norm, layer});
  } else if (config.qk_norm == QkNorm::whole) {
    out.vector(prefix + ".q_norm.weight", q, Cut::query_rows, {Role::q_norm, layer});
    out.vector(prefix + ".k_norm.weight", kv, Cut::key_value_rows, {Role::k_norm, layer});
  }
  out.matrix(prefix + ".o_proj.weight", hidden, q, Cut::query_columns, {Role::output, layer});
  if (config.output_bias) out.vector(prefix + ".o_proj.bias", hidden, Cut::whole, {Role::output_bias, layer});
}

std::vector<KeptOfLayer> attention_keeps(const ModelConfig& config, const ModelShard& shard) {
  return std::vector<KeptOfLayer>(
      static_cast<size_t>(config.num_hidden_layers),
      PagedKeyValues{.num_kv_heads = shard.num_kv_heads(config), .head_dim = config.head_dim});
}

}  // namespace moerun
