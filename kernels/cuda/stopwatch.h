#pragma once
#include <cuda_runtime_api.h>

#include <cstdint>

namespace moerun {

/// Nanoseconds (of %globaltimer) that passed between a start and the stop after it, added up; on the device.
struct Stopwatch {
  uint64_t began = 0, total = 0;
};

/// Enqueue a start or a stop: a launch of one thread, recordable in graphs.
void launch_stopwatch_start(Stopwatch* stopwatch, cudaStream_t stream);
void launch_stopwatch_stop(Stopwatch* stopwatch, cudaStream_t stream);

}  // namespace moerun
