#pragma once
#include <string>

#include "model/step.h"
#include "model/tensor_spec.h"
#include "model/weights.h"

namespace moerun {

/// A gated MLP on a rank's own tokens: whole on every rank, so nothing is exchanged. Dense layers are such,
/// and the expert that every token takes. Thread contract: the engine thread.
class DenseMlpBlock {
 public:
  /// Takes memory for the widest that the model has.
  explicit DenseMlpBlock(const ModelParts& parts);

  /// From step.normed to `out` [tokens of this rank, hidden].
  void run(const Step& step, const MlpWeights& weights, Tensor out);
  /// A dense layer: from step.normed to the sum with the residual, normed by `then`.
  void run(const Step& step, const LayerWeights& layer, const AddRmsNormArgs& then);

 private:
  const ModelParts& parts_;
  Tensor gate_up_, gated_;  // [P, …] of the widest
};

/// Its tensors, under `prefix` ("model.layers.0.mlp"): of a dense layer (kNoExpert), or of a sparse layer's
/// shared expert.
void dense_mlp_tensors(const ModelConfig& config, const std::string& prefix, int64_t layer, int32_t expert,
                       TensorList& out);

/// The width of the model's dense layers; 0 where it has none.
int64_t dense_width(const ModelConfig& config);

}  // namespace moerun
