#pragma once
#include <cuda_runtime_api.h>

#include <cstddef>
#include <string>
#include <vector>

#include "device/cuda/cuda_check.h"
#include "device/memory_uses.h"

namespace moerun {

/// The one allocation of a rank's GPU memory, handed out from the front and never given back: no
/// fragmentation, so nearly all of the GPU can be used.
class Arena {
 public:
  explicit Arena(size_t bytes);
  ~Arena();
  Arena(const Arena&) = delete;
  Arena& operator=(const Arena&) = delete;

  /// 256-byte aligned. Throws Error that names `what`, what it asked for and what was left.
  void* allocate(size_t bytes, const char* what);
  size_t free_bytes() const { return size_ - used_; }
  size_t size() const { return size_; }
  char* base() const { return base_; }
  const std::vector<MemoryUse>& uses() const { return uses_.table(); }

 private:
  char* base_ = nullptr;
  size_t size_ = 0, used_ = 0;
  MemoryUses uses_;
};

/// Host memory that the GPU reads and writes without a copy in between.
class PinnedBuffer {
 public:
  explicit PinnedBuffer(size_t bytes);
  ~PinnedBuffer();
  PinnedBuffer(const PinnedBuffer&) = delete;
  PinnedBuffer& operator=(const PinnedBuffer&) = delete;
  char* data() const { return data_; }
  size_t size() const { return size_; }

 private:
  char* data_ = nullptr;
  size_t size_ = 0;
};

class Stream {
 public:
  Stream();
  ~Stream();
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;
  operator cudaStream_t() const { return stream_; }

 private:
  cudaStream_t stream_ = nullptr;
};

class Event {
 public:
  Event();
  ~Event();
  Event(const Event&) = delete;
  Event& operator=(const Event&) = delete;
  operator cudaEvent_t() const { return event_; }

 private:
  cudaEvent_t event_ = nullptr;
};

}  // namespace moerun
