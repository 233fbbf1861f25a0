#include "device/cuda/cuda_nvml.h"

#include <dlfcn.h>
#include <fmt/format.h>

#include <memory>

#include "moerun/error.h"

namespace moerun {

namespace {

// The part of NVML's C interface that is used here. Toolkits often come without nvml.h, and the ABI of these
// calls is fixed: NVML API Reference Guide, "Initialization and Cleanup", nvmlDeviceGetHandleByUUID,
// nvmlDeviceGetComputeRunningProcesses_v3 (driver 510 and later).
using nvmlReturn_t = int;
using nvmlDevice_t = struct nvmlDevice_st*;
constexpr nvmlReturn_t kNvmlSuccess = 0;
constexpr nvmlReturn_t kNvmlInsufficientSize = 7;
struct nvmlProcessInfo_t {
  unsigned pid;
  unsigned long long usedGpuMemory;  // bytes; all ones where not available
  unsigned gpuInstanceId, computeInstanceId;
};
using Init = nvmlReturn_t();
using ErrorString = const char*(nvmlReturn_t);
using HandleByUuid = nvmlReturn_t(const char*, nvmlDevice_t*);
using RunningProcesses = nvmlReturn_t(nvmlDevice_t, unsigned*, nvmlProcessInfo_t*);

/// NVML for the length of one question.
class Nvml {
 public:
  Nvml() : library_(dlopen("libnvidia-ml.so.1", RTLD_NOW), &dlclose) {
    if (!library_) throw Error(fmt::format("NVML: {}", dlerror()));
    check(function<Init>("nvmlInit_v2")(), "nvmlInit");
  }
  ~Nvml() { function<Init>("nvmlShutdown")(); }
  Nvml(const Nvml&) = delete;
  Nvml& operator=(const Nvml&) = delete;

  template <typename Function>
  Function* function(const char* name) const {
    void* const symbol = dlsym(library_.get(), name);
    if (!symbol) throw Error(fmt::format("NVML: the driver's library has no {}", name));
    return reinterpret_cast<Function*>(symbol);
  }
  void check(nvmlReturn_t status, const char* call) const {
    if (status != kNvmlSuccess)
      throw Error(fmt::format("NVML: {}: {}", call, function<ErrorString>("nvmlErrorString")(status)));
  }

 private:
  std::unique_ptr<void, int (*)(void*)> library_;
};

}  // namespace

std::vector<DeviceProcess> nvml_compute_processes(const std::string& gpu_uuid) {
  const Nvml nvml;
  nvmlDevice_t device{};
  nvml.check(nvml.function<HandleByUuid>("nvmlDeviceGetHandleByUUID")(gpu_uuid.c_str(), &device),
             "nvmlDeviceGetHandleByUUID");
  const auto running = nvml.function<RunningProcesses>("nvmlDeviceGetComputeRunningProcesses_v3");
  std::vector<nvmlProcessInfo_t> infos(64);
  auto count = static_cast<unsigned>(infos.size());
  nvmlReturn_t status = running(device, &count, infos.data());
  while (status == kNvmlInsufficientSize) {
    infos.resize(count + 16);
    count = static_cast<unsigned>(infos.size());
    status = running(device, &count, infos.data());
  }
  nvml.check(status, "nvmlDeviceGetComputeRunningProcesses");
  std::vector<DeviceProcess> processes;
  for (unsigned i = 0; i < count; ++i) {
    const bool known = infos[i].usedGpuMemory != ~0ull;
    processes.push_back(
        {static_cast<int64_t>(infos[i].pid), known ? static_cast<int64_t>(infos[i].usedGpuMemory) : -1});
  }
  return processes;
}

}  // namespace moerun
