#pragma once
#include <cuda_runtime_api.h>
#include <fmt/format.h>

#include "moerun/error.h"

namespace moerun {

inline void cuda_check(cudaError_t status, const char* call, const char* file, int line) {
  if (status != cudaSuccess)
    throw Error(fmt::format("CUDA: {} ({}) from {} at {}:{}", cudaGetErrorString(status),
                            cudaGetErrorName(status), call, file, line));
}

}  // namespace moerun

#ifndef CUDA_CHECK
#define CUDA_CHECK(call) ::moerun::cuda_check((call), #call, __FILE__, __LINE__)
#endif
