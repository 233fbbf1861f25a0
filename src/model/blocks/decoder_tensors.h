#pragma once
#include <string>

#include "model/tensor_spec.h"

namespace moerun {

// The tensors around the MLPs of a decoder with Hugging Face's usual names, in three runs: before the layers,
// at the beginning of each, and behind them.

void decoder_begins(const ModelConfig& config, TensorList& out);
/// `prefix`: "model.layers.0".
void layer_with_attention(const ModelConfig& config, const std::string& prefix, int64_t layer,
                          TensorList& out);
void decoder_ends(const ModelConfig& config, TensorList& out);

}  // namespace moerun
