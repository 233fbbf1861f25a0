// GPU exchanges and collectives between ranks. One rank a GPU where there are enough, else ranks share GPU 0.
// Usage: mpirun -n N gpu_mpi [REPLAYS]
#include <cuda_runtime_api.h>

#include <cstdlib>
#include <exception>

#include "comm/gpu_backends.h"
#include "device/cuda/cuda_check.h"
#include "device/cuda_device.h"
#include "tests/gpu_mpi/suite.h"

namespace moerun::gpu_mpi_test {

std::unique_ptr<Device> make_test_device(const Place& place, size_t bytes) {
  CUDA_CHECK(cudaSetDevice(place.gpu));
  size_t free = 0, total = 0;
  CUDA_CHECK(cudaMemGetInfo(&free, &total));
  constexpr size_t kBeside = size_t{640} << 20;  // what the device leaves for the driver
  return make_cuda_device(
      {.index = place.gpu,
       .dtype = DType::bfloat16,
       .gpu_memory_utilization = static_cast<double>(bytes + kBeside) / static_cast<double>(total)});
}

}  // namespace moerun::gpu_mpi_test

int main(int argc, char** argv) {
  using namespace moerun;
  try {
    const MpiEnv env(&argc, &argv);
    mpi_test::Suite suite(env);
    const bool own_gpu = env.local_size() <= static_cast<int>(look_at_cuda().gpus.size());
    gpu_mpi_test::Place place{.env = &env, .gpu = own_gpu ? env.local_rank() : 0};
    place.nccl = own_gpu || nccl_takes_shared_gpus();
    place.exchanges = {"mpi", "p2p"};
    if (place.nccl) place.exchanges.insert(place.exchanges.end(), {"nccl", "nccl by counts"});
    if (argc > 1) place.replays = std::atoi(argv[1]);
    if (env.rank() == 0)
      fmt::print("{} ranks, {}: mpi, p2p{}\n", env.size(), own_gpu ? "a GPU each" : "all on one GPU",
                 place.nccl ? ", nccl" : "; NCCL takes no two ranks on one GPU here");
    gpu_mpi_test::test_nccl_collectives(place, suite);
    gpu_mpi_test::test_exchanges(place, suite);
    return suite.finish();
  } catch (const std::exception& error) {
    fmt::print(stderr, "{}\n", error.what());
    return 1;
  }
}
