#pragma once
#include <memory>
#include <string>
#include <vector>

#include "tests/mpi/harness.h"

namespace moerun::gpu_mpi_test {

/// Where this rank runs, and what can be tested there.
struct Place {
  const MpiEnv* env = nullptr;
  int gpu = 0;
  bool nccl = false;                   ///< each rank has a GPU of its own, or NCCL takes several on one
  std::vector<std::string> exchanges;  ///< mpi, p2p, nccl, "nccl by counts"
  int replays = 1000;
};

/// A device of about `bytes`, small enough that several ranks fit on one GPU.
std::unique_ptr<Device> make_test_device(const Place& place, size_t bytes);

void test_exchanges(const Place& place, mpi_test::Suite& suite);
void test_nccl_collectives(const Place& place, mpi_test::Suite& suite);

}  // namespace moerun::gpu_mpi_test
