#include "device/cuda/cuda_wait.h"

#include <chrono>

#include "device/cuda/cuda_check.h"

namespace moerun {

void StreamWait::wait() const {
  using Clock = std::chrono::steady_clock;
  constexpr auto kPause = std::chrono::milliseconds(20);
  if (!check_) {
    CUDA_CHECK(cudaStreamSynchronize(stream_));
    return;
  }
  for (auto due = Clock::now() + kPause;;) {
    const cudaError_t status = cudaStreamQuery(stream_);
    if (status == cudaSuccess) return;
    if (status != cudaErrorNotReady) CUDA_CHECK(status);
    if (Clock::now() < due) continue;
    check_();
    due = Clock::now() + kPause;
  }
}

}  // namespace moerun
