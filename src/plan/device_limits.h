#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "moerun/device.h"

namespace moerun {

/// Of MLPs that every token takes; 0: there are none.
struct DenseWidths {
  int64_t dense = 0;   ///< of dense layers
  int64_t shared = 0;  ///< of the expert beside the routed ones
};

/// What of a step's limits, of these widths and of the model's gated delta nets the CUDA device's kernels do
/// not take, a sentence each that names the job's key or the field of config.json; empty when they take it
/// all. The numbers are the launchers' own (kernels/cuda/limits.h). Pure: no GPU, no CUDA.
std::vector<std::string> device_refuses(const StepLimits& limits, DenseWidths widths,
                                        const DeltaShape& delta = {});

}  // namespace moerun
