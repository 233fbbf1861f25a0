#include "device/gpu_sight.h"

#include <fstream>

#include "moerun/error.h"
#include "tests/catch.h"
#include "tests/unit/temporary_directory.h"

using namespace moerun;
using Kind = Job::DeviceKind;

namespace {

const Gpu kHopper{.name = "NVIDIA H100", .major = 9}, kAmpere{.name = "NVIDIA A100", .major = 8};

std::string refusal(Kind asked, const GpuSight& sight) {
  try {
    decide_device(asked, sight);
  } catch (const BadInput& error) {
    return error.what();
  }
  return "";
}

void write(const std::filesystem::path& path, const std::string& text) {
  std::filesystem::create_directories(path.parent_path());
  std::ofstream(path) << text;
}

}  // namespace

TEST_CASE("device: auto is CUDA where a GPU is usable, the CPU where the machine has none") {
  CHECK(decide_device(Kind::automatic, {.gpus = {kHopper, kHopper}, .present = true}) == Kind::cuda);
  CHECK(decide_device(Kind::automatic, {.why_none = "no driver"}) == Kind::cpu);
  CHECK(refusal(Kind::automatic, {.present = true, .why_none = "CUDA sees none"}) ==
        "device: auto: this machine has a GPU, which cannot be used: CUDA sees none; mend that, or set "
        "device: cpu");
}

TEST_CASE("device: cuda that cannot be used is refused, and says why") {
  CHECK(decide_device(Kind::cuda, {.gpus = {kAmpere, kHopper}, .present = true}) == Kind::cuda);
  CHECK(refusal(Kind::cuda, {.why_none = "no driver"}) == "device: cuda cannot be used here: no driver");
  CHECK(
      refusal(Kind::cuda, {.gpus = {kAmpere}, .present = true, .why_none = why_not(0, kAmpere)}) ==
      "device: cuda cannot be used here: GPU 0 (NVIDIA A100) has compute capability 8.0; the kernels are for "
      "Hopper (9.0: H100, H200, GH200)");
  CHECK(decide_device(Kind::cpu, {.present = true, .why_none = "no driver"}) == Kind::cpu);
  CHECK(decide_device(Kind::null, {}) == Kind::null);
}

TEST_CASE("a machine's GPUs show as device files, in the driver's list, or on the PCI bus") {
  const TemporaryDirectory root;
  const std::filesystem::path at = root.path();
  CHECK_FALSE(machine_has_gpu(at));
  write(at / "dev/nvidiactl", "");
  write(at / "sys/bus/pci/devices/0/vendor", "0x10de\n");
  write(at / "sys/bus/pci/devices/0/class", "0x040300\n");  // the sound of a graphics card
  write(at / "sys/bus/pci/devices/1/vendor", "0x1af4\n");
  write(at / "sys/bus/pci/devices/1/class", "0x030200\n");
  CHECK_FALSE(machine_has_gpu(at));

  SECTION("device file") { write(at / "dev/nvidia0", ""); }
  SECTION("driver") { write(at / "proc/driver/nvidia/gpus/0000:41:00.0/information", "Model: H100"); }
  SECTION("PCI") {
    write(at / "sys/bus/pci/devices/2/vendor", "0x10de\n");
    write(at / "sys/bus/pci/devices/2/class", "0x030200\n");
  }
  CHECK(machine_has_gpu(at));
}
