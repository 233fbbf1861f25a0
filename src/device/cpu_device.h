#pragma once
#include <memory>

#include "moerun/device.h"

namespace moerun {

struct CpuOptions {
  size_t kv_bytes = size_t{2} << 30;  ///< room for keys and values
};

/// The host's processors as a Device: float32 throughout, every operation the plain twin (kernels/cpu) of the
/// CUDA kernels. Uses as many threads as OpenMP is given.
std::unique_ptr<Device> make_cpu_device(const CpuOptions& options = {});

}  // namespace moerun
