#include "model/blocks/dense_mlp.h"

#include <algorithm>

namespace moerun {

DenseMlpBlock::DenseMlpBlock(const ModelParts& parts) : parts_(parts) {
  const ModelConfig& config = *parts.config;
  if (std::find(config.sparse.begin(), config.sparse.end(), false) == config.sparse.end()) return;
  Device& device = *parts.device;
  gate_up_ = device.tensor(parts.part_rows(), 2 * config.intermediate_size, device.dtype(), "activations");
  gated_ = device.tensor(parts.part_rows(), config.intermediate_size, device.dtype(), "activations");
}

void DenseMlpBlock::run(const Step& step, const LayerWeights& layer, const AddRmsNormArgs& then) {
  Device& device = *parts_.device;
  const int64_t n = step.part.count();
  if (n == 0) return;
  device.linear(step.normed.first(n), layer.gate_up, nullptr, gate_up_.first(n));
  device.silu_mul(gate_up_.first(n), gated_.first(n));
  device.linear(gated_.first(n), layer.down, nullptr, step.delta.first(n));
  device.add_rms_norm(then);
}

void dense_mlp_tensors(const ModelConfig& config, const std::string& prefix, int64_t layer, TensorList& out) {
  const int64_t hidden = config.hidden_size, width = config.intermediate_size;
  out.matrix(prefix + ".gate_proj.weight", width, hidden, Cut::whole, {Role::gate, layer});
  out.matrix(prefix + ".up_proj.weight", width, hidden, Cut::whole, {Role::up, layer});
  out.matrix(prefix + ".down_proj.weight", hidden, width, Cut::whole, {Role::down, layer});
}

}  // namespace moerun
