#include "device/factory.h"

#include <fmt/format.h>

#include <cstdlib>
#include <string_view>

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

std::unique_ptr<Device> make_gpu(const DeviceRequest& request) {
  const auto count = static_cast<int>(look_at_cuda().gpus.size());
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

constexpr const char* kNotBuilt = "this program was built without CUDA (make CUDA=1)";

GpuSight look_at_cuda() { return {.why_none = kNotBuilt}; }

std::unique_ptr<Device> make_gpu(const DeviceRequest&) { throw BadInput(kNotBuilt); }

#endif

/// Whether whoever started this process wants it to see no GPU.
bool hides_gpus(const char* cuda_visible_devices) {
  return cuda_visible_devices &&
         (*cuda_visible_devices == '\0' || std::string_view(cuda_visible_devices) == "-1");
}

}  // namespace

GpuSight look_for_gpus() {
  GpuSight sight = look_at_cuda();
  const char* const visible = std::getenv("CUDA_VISIBLE_DEVICES");
  sight.present = !sight.gpus.empty() || (!hides_gpus(visible) && machine_has_gpu("/"));
  if (has_cuda() && sight.gpus.empty()) {
    if (visible) sight.why_none += fmt::format("; CUDA_VISIBLE_DEVICES is \"{}\"", visible);
    if (std::getenv("SLURM_JOB_ID")) sight.why_none += "; has the job asked Slurm for GPUs (--gres=gpu:N)?";
  }
  return sight;
}

Job::DeviceKind resolve_device(Job::DeviceKind kind) {
  if (kind != Job::DeviceKind::automatic && kind != Job::DeviceKind::cuda) return kind;
  return decide_device(kind, look_for_gpus());
}

std::unique_ptr<Device> make_device(Job::DeviceKind kind, const DeviceRequest& request) {
  if (kind == Job::DeviceKind::cuda) return make_gpu(request);
  return make_cpu_device({.kv_bytes = static_cast<size_t>(request.memory.cpu_kv_gib * (1 << 30)),
                          .num_sharers = request.local_size});
}

}  // namespace moerun
