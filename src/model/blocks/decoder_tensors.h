#pragma once
#include <functional>
#include <string>

#include "model/tensor_spec.h"

namespace moerun {

/// Adds the tensors of a sparse layer's MLP. `prefix`: "model.layers.0".
using SparseMlpTensors = std::function<void(const std::string& prefix, int64_t layer)>;

/// All tensors of a decoder with Hugging Face's usual names; what differs between families is the sparse
/// layers' MLP. A dense layer's stands under "model.layers.0.mlp".
void decoder_tensors(const ModelConfig& config, TensorList& out, const SparseMlpTensors& sparse_mlp);

/// The same where the sparse layers have Qwen's experts and a shared expert with a gate.
void shared_expert_decoder_tensors(const ModelConfig& config, TensorList& out);

}  // namespace moerun
