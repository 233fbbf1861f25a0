#include "device/cuda/cuda_upload.h"

#include <algorithm>
#include <cstring>

#include "kernels/cuda/fp8_place.h"
#include "kernels/cuda/place_rows.h"
#include "moerun/fp8.h"

namespace moerun {

namespace {
constexpr size_t kBufferBytes = size_t{32} << 20;
}

WeightUpload::WeightUpload(Arena& arena, cudaStream_t stream)
    : stream_(stream),
      buffers_{Buffer{PinnedBuffer(kBufferBytes), arena.allocate(kBufferBytes, "upload buffers"), Event()},
               Buffer{PinnedBuffer(kBufferBytes), arena.allocate(kBufferBytes, "upload buffers"), Event()}} {}

WeightUpload::~WeightUpload() { cudaStreamSynchronize(stream_); }

void WeightUpload::gather(char* out, const HostMatrix& part, int64_t begin, int64_t count) {
  const size_t row_bytes = static_cast<size_t>(part.cols) * size_of(part.dtype);
  const size_t stride = static_cast<size_t>(part.row_stride) * size_of(part.dtype);
  const char* const in = static_cast<const char*>(part.data) + static_cast<size_t>(begin) * stride;
#pragma omp parallel for schedule(static)
  for (int64_t row = 0; row < count; ++row)
    std::memcpy(out + static_cast<size_t>(row) * row_bytes, in + static_cast<size_t>(row) * stride,
                row_bytes);
}

WeightUpload::Buffer& WeightUpload::next_buffer() {
  Buffer& buffer = buffers_[next_];
  next_ = 1 - next_;
  CUDA_CHECK(cudaEventSynchronize(buffer.free));
  return buffer;
}

void WeightUpload::rows(const Target& target, const HostMatrix& part) {
  PlaceRowsArgs args{.dst = target.dst,
                     .dst_dtype = target.dtype,
                     .rows = part.rows,
                     .cols = part.cols,
                     .row0 = target.row0,
                     .interleave = target.interleave,
                     .half = target.half,
                     .packed_rows = target.packed_rows};
  if (!part.data) {
    args.dummy = part.dummy;
    args.dummy_stride = part.row_stride;
    launch_place_rows(args, stream_);
    CUDA_CHECK(cudaGetLastError());
    return;
  }
  const size_t row_bytes = static_cast<size_t>(part.cols) * size_of(part.dtype);
  const auto rows_a_buffer = static_cast<int64_t>(kBufferBytes / row_bytes);
  if (rows_a_buffer == 0)
    throw Error(fmt::format("a weight row of {} bytes does not fit the upload buffer", row_bytes));
  for (int64_t begin = 0; begin < part.rows; begin += rows_a_buffer) {
    const int64_t count = std::min(rows_a_buffer, part.rows - begin);
    Buffer& buffer = next_buffer();
    gather(buffer.host.data(), part, begin, count);
    CUDA_CHECK(cudaMemcpyAsync(buffer.device, buffer.host.data(), static_cast<size_t>(count) * row_bytes,
                               cudaMemcpyHostToDevice, stream_));
    args.src = buffer.device;
    args.src_dtype = part.dtype;
    args.rows = count;
    args.row0 = target.row0 + begin;
    launch_place_rows(args, stream_);
    CUDA_CHECK(cudaGetLastError());
    CUDA_CHECK(cudaEventRecord(buffer.free, stream_));
  }
}

void WeightUpload::fp8_rows(const Fp8Target& target, const HostMatrix& part) {
  Fp8PlaceArgs args{.dummy = part.dummy,
                    .dummy_stride = part.row_stride,
                    .scale = part.scales.value,
                    .dst = target.dst,
                    .dst_rows = target.dst_rows,
                    .rows = part.rows,
                    .cols = part.cols,
                    .row0 = target.row0,
                    .interleave = target.interleave};
  if (!part.data) return launch_fp8_place(args, stream_);
  // Scales first, then rows: both are whole bytes, and the scales want to be aligned.
  const auto groups = static_cast<size_t>(scale_groups(part.cols));
  const size_t scale_bytes = groups * sizeof(float), row_bytes = scale_bytes + static_cast<size_t>(part.cols);
  const auto rows_a_buffer = static_cast<int64_t>(kBufferBytes / row_bytes);
  if (rows_a_buffer == 0)
    throw Error(fmt::format("a weight row of {} bytes does not fit the upload buffer", row_bytes));
  for (int64_t begin = 0; begin < part.rows; begin += rows_a_buffer) {
    const int64_t count = std::min(rows_a_buffer, part.rows - begin);
    const size_t values_at = static_cast<size_t>(count) * scale_bytes;
    Buffer& buffer = next_buffer();
    auto* const scales = reinterpret_cast<float*>(buffer.host.data());
#pragma omp parallel for schedule(static)
    for (int64_t row = 0; row < count; ++row)
      for (size_t group = 0; group < groups; ++group)
        scales[static_cast<size_t>(row) * groups + group] =
            part.scales.at(begin + row, static_cast<int64_t>(group) * kScaleGroup);
    gather(buffer.host.data() + values_at, part, begin, count);
    CUDA_CHECK(cudaMemcpyAsync(buffer.device, buffer.host.data(), static_cast<size_t>(count) * row_bytes,
                               cudaMemcpyHostToDevice, stream_));
    args.scales = static_cast<const float*>(buffer.device);
    args.src = static_cast<const uint8_t*>(buffer.device) + values_at;
    args.rows = count;
    args.row0 = target.row0 + begin;
    launch_fp8_place(args, stream_);
    CUDA_CHECK(cudaEventRecord(buffer.free, stream_));
  }
}

}  // namespace moerun
