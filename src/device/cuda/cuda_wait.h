#pragma once
#include <cuda_runtime_api.h>

#include <functional>

namespace moerun {

/// The host's waits for a stream. While one lasts, a check is called now and then, so that a fault which the
/// GPU would wait out for ever (a peer of a collective that is gone) ends the wait. Thread contract: the
/// engine thread.
class StreamWait {
 public:
  explicit StreamWait(cudaStream_t stream) : stream_(stream) {}
  /// `check` may throw; it must not wait.
  void set_check(const std::function<void()>& check) { check_ = check; }
  /// Until all that was enqueued is done. Throws Error on a device fault, and what the check throws.
  void wait() const;

 private:
  cudaStream_t stream_;
  std::function<void()> check_;
};

}  // namespace moerun
