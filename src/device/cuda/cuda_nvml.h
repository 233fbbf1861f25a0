#pragma once
#include <string>
#include <vector>

#include "moerun/device.h"

namespace moerun {

/// The processes that the driver's management library counts as computing on the GPU with this UUID
/// ("GPU-…"), with their memory. The library (libnvidia-ml.so.1) comes with the driver and is loaded when
/// asked. Throws Error when it is missing or refuses.
std::vector<DeviceProcess> nvml_compute_processes(const std::string& gpu_uuid);

}  // namespace moerun
