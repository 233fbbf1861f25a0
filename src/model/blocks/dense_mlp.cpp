#include "model/blocks/dense_mlp.h"

#include <algorithm>

namespace moerun {

DenseMlpBlock::DenseMlpBlock(const ModelParts& parts) : parts_(parts) {
  const ModelConfig& config = *parts.config;
  const int64_t widest = std::max(dense_width(config), config.shared_intermediate_size);
  if (widest == 0) return;
  Device& device = *parts.device;
  gate_up_ = device.tensor(parts.part_rows(), 2 * widest, device.dtype(), "activations");
  gated_ = device.tensor(parts.part_rows(), widest, device.dtype(), "activations");
}

void DenseMlpBlock::run(const Step& step, const MlpWeights& weights, Tensor out) {
  Device& device = *parts_.device;
  const int64_t n = step.part.count(), width = weights.down.in_features;
  if (n == 0) return;
  const auto bias = [](const Tensor& tensor) { return tensor.data ? &tensor : nullptr; };
  const Tensor gate_up{gate_up_.data, gate_up_.dtype, n, 2 * width};
  const Tensor gated{gated_.data, gated_.dtype, n, width};
  device.linear(step.normed.first(n), weights.gate_up, bias(weights.gate_up_bias), gate_up);
  device.silu_mul(gate_up, gated);
  device.linear(gated, weights.down, bias(weights.down_bias), out.first(n));
}

void DenseMlpBlock::run(const Step& step, const LayerWeights& layer, const AddRmsNormArgs& then) {
  if (step.part.count() == 0) return;
  run(step, layer.mlp, step.delta);
  parts_.device->add_rms_norm(then);
}

void dense_mlp_tensors(const ModelConfig& config, const std::string& prefix, int64_t layer, int32_t expert,
                       TensorList& out) {
  const int64_t hidden = config.hidden_size;
  const int64_t width = expert == kSharedExpert ? config.shared_intermediate_size : config.intermediate_size;
  const auto projection = [&](const char* name, int64_t rows, int64_t cols, Role weight, Role bias) {
    out.matrix(prefix + name + ".weight", rows, cols, Cut::whole, {weight, layer, expert});
    if (config.mlp_bias) out.vector(prefix + name + ".bias", rows, Cut::whole, {bias, layer, expert});
  };
  projection(".gate_proj", width, hidden, Role::gate, Role::gate_bias);
  projection(".up_proj", width, hidden, Role::up, Role::up_bias);
  projection(".down_proj", hidden, width, Role::down, Role::down_bias);
}

int64_t dense_width(const ModelConfig& config) {
  const bool dense = std::find(config.sparse.begin(), config.sparse.end(), false) != config.sparse.end();
  return dense ? config.intermediate_size : 0;
}

}  // namespace moerun
