#include "device/cuda/cuda_memory.h"

namespace moerun {

namespace {
constexpr size_t kAlignment = 256;
}

Arena::Arena(size_t bytes) : size_(bytes / kAlignment * kAlignment) {
  void* base = nullptr;
  CUDA_CHECK(cudaMalloc(&base, size_));
  base_ = static_cast<char*>(base);
}

Arena::~Arena() { cudaFree(base_); }

void* Arena::allocate(size_t bytes, const char* what) {
  const size_t rounded = (bytes + kAlignment - 1) / kAlignment * kAlignment;
  if (rounded > free_bytes())
    throw Error(
        fmt::format("GPU memory: {} needs {:.2f} GiB and {:.2f} GiB of the {:.2f} GiB arena are left; raise "
                    "memory.gpu_memory_utilization, lower scheduler.max_num_batched_tokens, or spread the "
                    "model over more GPUs",
                    what, static_cast<double>(bytes) / (1 << 30),
                    static_cast<double>(free_bytes()) / (1 << 30), static_cast<double>(size_) / (1 << 30)));
  void* const data = base_ + used_;
  used_ += rounded;
  uses_.add(what, rounded);
  return data;
}

PinnedBuffer::PinnedBuffer(size_t bytes) : size_(bytes) {
  void* data = nullptr;
  CUDA_CHECK(cudaHostAlloc(&data, bytes, cudaHostAllocDefault));
  data_ = static_cast<char*>(data);
}

PinnedBuffer::~PinnedBuffer() { cudaFreeHost(data_); }

Stream::Stream() { CUDA_CHECK(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking)); }
Stream::~Stream() { cudaStreamDestroy(stream_); }

Event::Event() { CUDA_CHECK(cudaEventCreateWithFlags(&event_, cudaEventDisableTiming)); }
Event::~Event() { cudaEventDestroy(event_); }

}  // namespace moerun
