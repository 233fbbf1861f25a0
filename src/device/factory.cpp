#include "device/factory.h"

#include <fmt/format.h>

#include "device/cpu_device.h"
#include "moerun/error.h"

#if MOERUN_CUDA
#include "device/cuda_device.h"
#include "device/gpu_of_rank.h"
#endif

namespace moerun {

bool has_cuda() { return MOERUN_CUDA != 0; }

namespace {

#if MOERUN_CUDA

int num_gpus() { return cuda_device_count(); }

std::unique_ptr<Device> make_gpu(const DeviceRequest& request) {
  const int count = num_gpus();
  // Slurm's --gpus-per-task with cgroups hides the other ranks' GPUs: each rank then cannot map their memory.
  if (count == 1 && request.local_size > 1 && request.speaks && !request.shared_gpus)
    fmt::print(
        stderr,
        "moerun: {} ranks run on this node and each sees one GPU alone: if the GPUs were bound to tasks "
        "(--gpus-per-task, --gpu-bind), ranks cannot reach each other's memory and the exchange is "
        "slower; give the job its GPUs as a whole (--gres=gpu:{} or --gpus-per-node)\n",
        request.local_size, request.local_size);
  return make_cuda_device({.index = gpu_of_rank(request.local_rank, count, request.shared_gpus),
                           .dtype = request.dtype,
                           .gpu_memory_utilization = request.memory.gpu_memory_utilization,
                           .graphs = request.graphs});
}

#else

int num_gpus() { return 0; }

std::unique_ptr<Device> make_gpu(const DeviceRequest&) {
  throw BadInput("device: cuda was asked for, and this program was built without CUDA (make CUDA=1)");
}

#endif

}  // namespace

Job::DeviceKind resolve_device(Job::DeviceKind kind) {
  if (kind == Job::DeviceKind::automatic)
    return has_cuda() && num_gpus() > 0 ? Job::DeviceKind::cuda : Job::DeviceKind::cpu;
  if (kind == Job::DeviceKind::cuda && !has_cuda())
    throw BadInput("device: cuda was asked for, and this program was built without CUDA (make CUDA=1)");
  if (kind == Job::DeviceKind::cuda && num_gpus() == 0)
    throw BadInput("device: cuda was asked for, and no GPU is visible here");
  return kind;
}

DType resolve_dtype(Job::DeviceKind kind, std::optional<DType> asked, DType of_checkpoint) {
  if (kind == Job::DeviceKind::cuda) {
    if (asked == DType::float32)
      throw BadInput(
          "model.dtype: float32 is for device: cpu; the CUDA device computes in float16 or bfloat16");
    // A checkpoint in float32 is computed in bfloat16: the same range.
    return asked.value_or(of_checkpoint == DType::float32 ? DType::bfloat16 : of_checkpoint);
  }
  if (asked.value_or(DType::float32) != DType::float32)
    throw BadInput(fmt::format("model.dtype: {} is for device: cuda; the CPU device computes in float32",
                               name_of(*asked)));
  return DType::float32;
}

std::unique_ptr<Device> make_device(Job::DeviceKind kind, const DeviceRequest& request) {
  if (kind == Job::DeviceKind::cuda) return make_gpu(request);
  return make_cpu_device({.kv_bytes = static_cast<size_t>(request.memory.cpu_kv_gib * (1 << 30)),
                          .num_sharers = request.local_size});
}

}  // namespace moerun
