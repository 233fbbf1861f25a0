#pragma once
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "moerun/job.h"

namespace moerun {

/// A GPU that CUDA shows this process.
struct Gpu {
  std::string name, uuid;
  int64_t bytes = 0;         ///< of memory
  int major = 0, minor = 0;  ///< compute capability

  /// The kernels are for Hopper.
  bool usable() const { return major == 9; }
};

/// What one process finds of GPUs.
struct GpuSight {
  std::vector<Gpu> gpus;  ///< in CUDA's order
  bool present = false;   ///< the machine has NVIDIA GPUs, whether or not this process may use them
  std::string why_none;   ///< where none is usable: why, in words

  bool usable() const;
};

/// Why the kernels do not run on a GPU that is not usable().
std::string why_not(int index, const Gpu& gpu);

/// Whether the machine has an NVIDIA GPU: by the driver's device files, by what the driver lists, or by its
/// PCI devices where no driver is loaded. Within a container the last two are the host's. `root`: "/", and a
/// made-up tree in tests.
bool machine_has_gpu(const std::filesystem::path& root);

/// The device that a job runs on: what it names, and for `auto` CUDA where a GPU is usable and the CPU where
/// the machine has none. Throws BadInput where CUDA was named and cannot be used, and for `auto` on a machine
/// with a GPU that cannot be used. Pure.
Job::DeviceKind decide_device(Job::DeviceKind asked, const GpuSight& sight);

}  // namespace moerun
