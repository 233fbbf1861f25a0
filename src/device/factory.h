#pragma once
#include <memory>
#include <string>

#include "device/gpu_sight.h"
#include "moerun/device.h"
#include "moerun/job.h"

namespace moerun {

/// What a rank's device is made from.
struct DeviceRequest {
  DType dtype = DType::float32;
  int local_rank = 0, local_size = 1;  ///< among the ranks of this node
  bool shared_gpus = false;            ///< several ranks may take one GPU (parallel.allow_shared_gpu)
  bool speaks = false;                 ///< whether this rank says what concerns them all
  bool graphs = true;
  Job::Memory memory;
};

/// Whether this build has the CUDA device.
bool has_cuda();

/// What this process finds of GPUs. Makes no CUDA context. Never throws.
GpuSight look_for_gpus();

/// decide_device by what this process finds. Throws BadInput.
Job::DeviceKind resolve_device(Job::DeviceKind kind);

/// Makes the rank's device (cpu or cuda), on the GPU that gpu_of_rank names. Throws Error.
std::unique_ptr<Device> make_device(Job::DeviceKind kind, const DeviceRequest& request);

}  // namespace moerun
