#include "device/gpu_sight.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <fstream>
#include <string_view>
#include <system_error>

#include "moerun/error.h"

namespace moerun {

namespace fs = std::filesystem;

namespace {

template <typename Predicate>
bool any_entry(const fs::path& directory, Predicate holds) {
  std::error_code failed;
  for (fs::directory_iterator at(directory, failed), end; !failed && at != end; at.increment(failed))
    if (holds(at->path())) return true;
  return false;
}

std::string first_word(const fs::path& file) {
  std::ifstream in(file);
  std::string word;
  in >> word;
  return word;
}

bool is_device_file(const fs::path& path) {  // /dev/nvidia0, and not /dev/nvidiactl
  constexpr std::string_view kPrefix = "nvidia";
  const std::string name = path.filename();
  return name.size() > kPrefix.size() && name.starts_with(kPrefix) &&
         std::all_of(name.begin() + kPrefix.size(), name.end(),
                     [](unsigned char c) { return std::isdigit(c) != 0; });
}

bool is_gpu_on_pci(const fs::path& device) {  // NVIDIA's VGA (0x0300) or 3D (0x0302) controller
  if (first_word(device / "vendor") != "0x10de") return false;
  const std::string kind = first_word(device / "class");
  return kind.starts_with("0x0300") || kind.starts_with("0x0302");
}

}  // namespace

bool GpuSight::usable() const {
  return std::any_of(gpus.begin(), gpus.end(), [](const Gpu& gpu) { return gpu.usable(); });
}

std::string why_not(int index, const Gpu& gpu) {
  return fmt::format(
      "GPU {} ({}) has compute capability {}.{}; the kernels are for Hopper (9.0: H100, H200, GH200)", index,
      gpu.name, gpu.major, gpu.minor);
}

bool machine_has_gpu(const fs::path& root) {
  return any_entry(root / "dev", is_device_file) ||
         any_entry(root / "proc/driver/nvidia/gpus", [](const fs::path&) { return true; }) ||
         any_entry(root / "sys/bus/pci/devices", is_gpu_on_pci);
}

Job::DeviceKind decide_device(Job::DeviceKind asked, const GpuSight& sight) {
  using Kind = Job::DeviceKind;
  if (asked == Kind::cuda && !sight.usable())
    throw BadInput(fmt::format("device: cuda cannot be used here: {}", sight.why_none));
  if (asked != Kind::automatic) return asked;
  if (sight.usable()) return Kind::cuda;
  if (sight.present)
    throw BadInput(fmt::format(
        "device: auto: this machine has a GPU, which cannot be used: {}; mend that, or set device: cpu",
        sight.why_none));
  return Kind::cpu;
}

}  // namespace moerun
