#pragma once
#include <memory>

#include "moerun/device.h"

namespace moerun {

struct CpuOptions {
  size_t kv_bytes = size_t{2} << 30;  ///< room for keys and values
  int num_sharers = 1;                ///< ranks that share this process's processors; each takes an even part
};

/// The host's processors as a Device: float32 throughout, every operation the plain twin (kernels/cpu) of the
/// CUDA kernels. Takes OMP_NUM_THREADS threads, or without that its part of the processors.
std::unique_ptr<Device> make_cpu_device(const CpuOptions& options = {});

}  // namespace moerun
