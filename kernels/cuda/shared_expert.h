#pragma once
#include <cuda_runtime_api.h>

#include "moerun/device.h"

namespace moerun {

/// Device::add_shared: sums += y·σ(x·gate) in float32, rounded once; without a gate sums += y. Rows of a
/// multiple of 8 elements.
void launch_add_shared(DType dtype, const AddSharedArgs& args, cudaStream_t stream);

}  // namespace moerun
