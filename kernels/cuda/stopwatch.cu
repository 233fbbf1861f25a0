#include "kernels/cuda/common.cuh"
#include "kernels/cuda/stopwatch.h"

namespace moerun {

namespace {

__global__ void start_kernel(Stopwatch* stopwatch) { stopwatch->began = cuda::nanoseconds(); }
__global__ void stop_kernel(Stopwatch* stopwatch) {
  stopwatch->total += cuda::nanoseconds() - stopwatch->began;
}

}  // namespace

void launch_stopwatch_start(Stopwatch* stopwatch, cudaStream_t stream) {
  start_kernel<<<1, 1, 0, stream>>>(stopwatch);
  CUDA_CHECK(cudaGetLastError());
}
void launch_stopwatch_stop(Stopwatch* stopwatch, cudaStream_t stream) {
  stop_kernel<<<1, 1, 0, stream>>>(stopwatch);
  CUDA_CHECK(cudaGetLastError());
}

}  // namespace moerun
