#include "model/blocks/delta_net.h"

#include <fmt/format.h>

#include <algorithm>

namespace moerun {

DeltaNetBlock::DeltaNetBlock(const ModelParts& parts) : parts_(parts) {
  if (!parts.config->has_delta_nets()) return;
  Device& device = *parts.device;
  const DeltaShape shape = parts.shard.delta(*parts.config);
  const int64_t all = parts.part_rows() * parts.shard.tensor;
  const auto rows = [&](int64_t cols, DType dtype) { return device.tensor(all, cols, dtype, "activations"); };
  qkvz_ = rows(shape.width(), device.dtype());
  ba_ = rows(2 * shape.num_value_heads, device.dtype());
  qkv_ = rows(shape.channels(), device.dtype());
  gates_ = rows(2 * shape.num_value_heads, DType::float32);
  heads_ = rows(shape.values(), device.dtype());
}

void DeltaNetBlock::run(const Step& step, const LayerWeights& layer, const DeltaState& state) {
  Device& device = *parts_.device;
  const int64_t n = step.plan.num_tokens;
  const bool whole = parts_.shard.tensor == 1;
  const Tensor x = whole ? step.normed : step.hidden;
  if (!whole) parts_.tp->all_gather(step.normed, step.hidden);

  device.linear(x.first(n), layer.delta.qkvz, nullptr, qkvz_.first(n));
  device.linear(x.first(n), layer.delta.ba, nullptr, ba_.first(n));
  device.delta_conv(step.plan, {.qkvz = qkvz_.first(n),
                                .ba = ba_.first(n),
                                .weight = layer.delta.conv,
                                .a_log = layer.delta.a_log,
                                .dt_bias = layer.delta.dt_bias,
                                .state = state,
                                .qkv = qkv_.first(n),
                                .gates = gates_.first(n)});
  device.delta_rule(step.plan,
                    {.qkv = qkv_.first(n), .gates = gates_.first(n), .state = state, .out = heads_.first(n)});
  device.delta_norm({.x = heads_.first(n),
                     .qkvz = qkvz_.first(n),
                     .weight = layer.delta.norm,
                     .shape = state.shape,
                     .eps = parts_.eps()});
  const int32_t chunks = delta_output_chunks(*parts_.config) / parts_.shard.tensor;
  const AddRmsNormArgs then = step.norm(layer.post_attention_norm, parts_.eps());
  if (whole) return device.linear_tree_add_rms_norm(heads_.first(n), layer.output, chunks, then);
  device.linear_tree(heads_.first(n), layer.output, chunks, step.hidden.first(n));
  parts_.tp->reduce_scatter(step.hidden, step.delta);
  device.add_rms_norm(then);
}

namespace {

/// `layer_types`, or every `full_attention_interval`-th layer with attention.
void read_layer_types(Fields& fields, ModelConfig& config) {
  int64_t interval = 4;
  fields.read("full_attention_interval", interval, 1, config_limits::kLayers);
  const auto count = static_cast<size_t>(config.num_hidden_layers);
  const nlohmann::json* const types = fields.find("layer_types");
  if (!types) {
    for (int64_t layer = 0; layer < config.num_hidden_layers; ++layer)
      config.delta_layers.push_back((layer + 1) % interval != 0);
  } else if (!types->is_array() || types->size() != count) {
    return fields.fault(fmt::format("layer_types must be a list of num_hidden_layers {} kinds", count));
  } else {
    for (const nlohmann::json& type : *types) {
      if (type != "linear_attention" && type != "full_attention")
        return fields.fault(fmt::format(
            "layer_types has {}, and linear_attention and full_attention are supported", shown(type)));
      config.delta_layers.push_back(type == "linear_attention");
    }
  }
  for (const bool delta : {true, false})
    if (std::find(config.delta_layers.begin(), config.delta_layers.end(), delta) == config.delta_layers.end())
      fields.fault(
          fmt::format("no layer has {} (layer_types, full_attention_interval): such models are not supported",
                      delta ? "linear_attention" : "full_attention"));
}

}  // namespace

void read_delta_nets(Fields& fields, ModelConfig& config) {
  namespace most = config_limits;
  constexpr int64_t kMostWide = 16;
  DeltaShape& delta = config.delta;
  fields.require("linear_num_key_heads", delta.num_key_heads, 1, most::kHeads);
  fields.require("linear_num_value_heads", delta.num_value_heads, 1, most::kHeads);
  fields.require("linear_key_head_dim", delta.key_dim, 1, most::kHeadDim);
  fields.require("linear_value_head_dim", delta.value_dim, 1, most::kHeadDim);
  fields.require("linear_conv_kernel_dim", delta.conv_width, 2, kMostWide);
  if (delta.num_key_heads > 0 && delta.num_value_heads % delta.num_key_heads != 0)
    fields.fault(fmt::format("linear_num_value_heads {} is no multiple of linear_num_key_heads {}",
                             delta.num_value_heads, delta.num_key_heads));
  read_layer_types(fields, config);
}

void delta_net_tensors(const ModelConfig& config, const std::string& prefix, int64_t layer, TensorList& out) {
  const DeltaShape& delta = config.delta;
  const int64_t hidden = config.hidden_size, heads = delta.num_value_heads, keys = delta.keys();
  const auto projection = [&](const char* name, int64_t rows, Role role) {
    out.matrix(prefix + name, rows, hidden, Cut::even_rows, {role, layer});
  };
  if (delta.by_key_heads) {  // an equal part of the rows is that of as many key heads
    projection(".in_proj_qkvz.weight", delta.width(), Role::delta_q);
    projection(".in_proj_ba.weight", 2 * heads, Role::delta_b);
  } else {
    const auto part = [&](int64_t first, int64_t count, Role role) {
      out.rows_of(prefix + ".in_proj_qkv.weight", delta.channels(), {first, count, hidden}, Cut::even_rows,
                  {role, layer});
    };
    part(0, keys, Role::delta_q);
    part(keys, keys, Role::delta_k);
    part(2 * keys, delta.values(), Role::delta_v);
    projection(".in_proj_z.weight", delta.values(), Role::delta_z);
    projection(".in_proj_b.weight", heads, Role::delta_b);
    projection(".in_proj_a.weight", heads, Role::delta_a);
  }
  const auto conv = [&](int64_t first, int64_t count, Role role) {
    const int64_t width = delta.conv_width;
    TensorSpec& spec = out.rows_of(prefix + ".conv1d.weight", delta.channels(), {first, count, width},
                                   Cut::even_rows, {role, layer});
    spec.stored.front().shape = {delta.channels(), 1, width};
  };
  conv(0, keys, Role::conv_q);
  conv(keys, keys, Role::conv_k);
  conv(2 * keys, delta.values(), Role::conv_v);
  for (const auto& [name, role] : {std::pair(".A_log", Role::delta_a_log), {".dt_bias", Role::delta_dt_bias}})
    out.vector(prefix + name, heads, Cut::even_rows, {role, layer}).format.dtype = DType::float32;
  out.vector(prefix + ".norm.weight", delta.value_dim, Cut::whole, {Role::delta_norm, layer});
  out.matrix(prefix + ".out_proj.weight", hidden, delta.values(), Cut::even_columns, {Role::output, layer});
}

std::vector<KeptOfLayer> delta_nets_keep(const ModelConfig& config, const ModelShard& shard) {
  std::vector<KeptOfLayer> kept;
  for (int64_t layer = 0; layer < config.num_hidden_layers; ++layer)
    if (config.is_delta(layer))
      kept.emplace_back(FixedState{shard.delta(config)});
    else
      kept.emplace_back(
          PagedKeyValues{.num_kv_heads = shard.num_kv_heads(config), .head_dim = config.head_dim});
  return kept;
}

}  // namespace moerun
