#pragma once
#include <cuda_runtime_api.h>

#include <vector>

#include "device/cuda/cuda_check.h"
#include "device/cuda/cuda_memory.h"

namespace moerun::test {

template <typename T>
T* device_array(Arena& arena, size_t count) {
  return static_cast<T*>(arena.allocate(count * sizeof(T), "test"));
}
template <typename T>
void put(T* device, const std::vector<T>& host) {
  if (host.empty()) return;
  CUDA_CHECK(cudaMemcpy(device, host.data(), host.size() * sizeof(T), cudaMemcpyHostToDevice));
  // A copy from pageable memory may still be on its way, and the tests' streams do not wait for it.
  CUDA_CHECK(cudaDeviceSynchronize());
}
template <typename T>
T* put(Arena& arena, const std::vector<T>& host) {
  T* const device = device_array<T>(arena, host.size());
  put(device, host);
  return device;
}
template <typename T>
std::vector<T> get(const void* device, size_t count) {
  std::vector<T> host(count);
  CUDA_CHECK(cudaMemcpy(host.data(), device, count * sizeof(T), cudaMemcpyDeviceToHost));
  return host;
}

}  // namespace moerun::test
