#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "moerun/device.h"

namespace moerun {

/// What of a step's limits and of the width of dense layers (0: there are none) the CUDA device's kernels do
/// not take, a sentence each that names the job's key or the field of config.json; empty when they take it
/// all. The numbers are the launchers' own (kernels/cuda/limits.h). Pure: no GPU, no CUDA.
std::vector<std::string> device_refuses(const StepLimits& limits, int64_t intermediate_size);

}  // namespace moerun
