#pragma once
#include <string>
#include <string_view>
#include <vector>

#include "model/config_fields.h"
#include "model/tensor_spec.h"
#include "moerun/model_config.h"

namespace moerun {

/// Reads `quantization_config` (in older folders `compression_config`): FP8 in blocks as Qwen, DeepSeek and
/// MiniMax publish it (transformers' FineGrainedFP8Config), and compressed-tensors' float-quantized with a
/// scale for each output channel or block. Any other is a fault that names it and says which are read.
/// Returns the regular expressions among the modules that are not converted.
std::vector<std::string> read_quantization(Fields& fields, Quantization& quantization);

/// Once the shape is known: puts the names of the modules that `patterns` match among those that are not
/// converted, and finds matrices that are one here and of which parts alone are converted.
void settle_quantization(const std::vector<std::string>& patterns, ModelConfig& config, Fields& fields);

/// Gives the matrix of a linear layer the format and the stored scales that the quantisation says.
void quantise(const Quantization& quantization, TensorSpec& spec);

}  // namespace moerun
