#pragma once
#include <array>
#include <cstdint>

#include "device/cuda/cuda_memory.h"
#include "moerun/device.h"

namespace moerun {

/// Streams checkpoint rows from (memory-mapped) host memory into device memory: copied by several host
/// threads into one of two pinned buffers while the other crosses the bus, converted and arranged on the GPU.
/// Alive during start-up alone. Thread contract: the engine thread; its helpers copy host memory and never
/// call CUDA.
class WeightUpload {
 public:
  WeightUpload(Arena& arena, cudaStream_t stream);
  ~WeightUpload();
  WeightUpload(const WeightUpload&) = delete;
  WeightUpload& operator=(const WeightUpload&) = delete;

  /// Where a part goes: the rows from `row0` of a matrix at `dst`; the rest as in
  /// PlaceRowsArgs.
  struct Target {
    void* dst = nullptr;
    DType dtype = DType::bfloat16;
    int64_t row0 = 0;
    int32_t interleave = 0;
    int64_t half = 0;
    int64_t packed_rows = 0;
  };
  void rows(const Target& target, const HostMatrix& part);

  /// Where a part in e4m3 goes: from logical row `row0` of the Fp8PackedWeight{dst_rows, part.cols} at `dst`.
  struct Fp8Target {
    uint8_t* dst = nullptr;
    int64_t dst_rows = 0, row0 = 0;
    bool interleave = false;  ///< as in Fp8PlaceArgs
  };
  void fp8_rows(const Fp8Target& target, const HostMatrix& part);

 private:
  struct Buffer {
    PinnedBuffer host;
    void* device;
    Event free;  ///< recorded when the GPU is done with both
  };
  /// Waits until the next buffer is free.
  Buffer& next_buffer();
  static void gather(char* out, const HostMatrix& part, int64_t begin, int64_t count);

  cudaStream_t stream_;
  std::array<Buffer, 2> buffers_;
  size_t next_ = 0;
};

}  // namespace moerun
