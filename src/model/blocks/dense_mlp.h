#pragma once
#include <string>

#include "model/step.h"
#include "model/tensor_spec.h"
#include "model/weights.h"

namespace moerun {

/// A dense gated MLP on a rank's own tokens: whole on every rank, so nothing is exchanged. Thread contract:
/// the engine thread.
class DenseMlpBlock {
 public:
  /// Takes memory where the model has dense layers.
  explicit DenseMlpBlock(const ModelParts& parts);

  /// From step.normed to the sum with the residual, normed by `then`.
  void run(const Step& step, const LayerWeights& layer, const AddRmsNormArgs& then);

 private:
  const ModelParts& parts_;
  Tensor gate_up_, gated_;  // [P, …]
};

/// Its tensors, under `prefix` ("model.layers.0.mlp").
void dense_mlp_tensors(const ModelConfig& config, const std::string& prefix, int64_t layer, TensorList& out);

}  // namespace moerun
