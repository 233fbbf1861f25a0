#pragma once
#include <memory>
#include <string>

#include "device/gpu_sight.h"
#include "moerun/device.h"

namespace moerun {

// This header names no CUDA type: host code includes it. What it declares exists in builds with CUDA=1.

struct CudaOptions {
  int index = 0;                        ///< among the GPUs that this process sees
  DType dtype = DType::bfloat16;        ///< float16 or bfloat16
  double gpu_memory_utilization = 0.9;  ///< of the GPU's memory, this process's context included
  bool graphs = true;                   ///< record steps that recur as CUDA graphs
};

/// GPUs that CUDA shows this process, and why none of them can be used, where none can; `present` is not set.
/// Makes no context on any. Never throws.
GpuSight look_at_cuda();

/// Chooses the GPU for this thread before anything else touches CUDA, and takes its memory in one piece.
/// Throws Error when the GPU is not there, is older than compute capability 9.0, or has too little memory
/// free.
std::unique_ptr<Device> make_cuda_device(const CudaOptions& options);

/// The one allocation that a device's memory is, for exchanges that open it in other processes.
struct CudaMemory {
  char* base = nullptr;
  size_t bytes = 0;
};
/// Throws Error if `device` is not a CUDA device.
CudaMemory cuda_memory(Device& device);

/// The stream that the device's operations run on, for the exchanges that share it (a cudaStream_t). Throws
/// Error if `device` is not a CUDA device.
void* cuda_stream(Device& device);

}  // namespace moerun
