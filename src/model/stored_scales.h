#pragma once
#include <string>
#include <string_view>
#include <vector>

#include "io/safetensors.h"
#include "model/tensor_spec.h"
#include "moerun/device.h"

namespace moerun {

/// What is wrong with the type of a stored tensor and, where its format is e4m3, with its scales: they are
/// there, have the right shape, and each is finite and more than 0.
void check_scales(const TensorSpec& spec, const StoredTensor& stored, const Checkpoint& checkpoint,
                  std::vector<std::string>& faults);

/// What to add where a tensor of a quantised checkpoint is not known; empty where there is nothing to say.
std::string why_not_read(std::string_view name);

/// Throws BadInput that names the tensor where a part in e4m3 has a NaN. Reads all of it.
void refuse_nan(const HostMatrix& part, const std::string& name);

}  // namespace moerun
