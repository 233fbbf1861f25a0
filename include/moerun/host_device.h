#pragma once

/// In front of a function that is compiled for the host and, by nvcc, for the GPU too.
#ifdef __CUDACC__
#define MOERUN_HOST_DEVICE __host__ __device__
#else
#define MOERUN_HOST_DEVICE
#endif
