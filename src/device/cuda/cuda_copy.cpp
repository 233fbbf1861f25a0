#include "device/cuda/cuda_copy.h"

#include <algorithm>

#include "kernels/cuda/copy_rows.h"

namespace moerun {

RowCopies::RowCopies(cudaStream_t stream)
    : stream_(stream),
      entries_{PinnedBuffer(kEntries * sizeof(CopyRowsEntry)),
               PinnedBuffer(kEntries * sizeof(CopyRowsEntry))} {}

void RowCopies::copy(std::span<const KvLayer> cache, std::span<const int32_t> copies) {
  const KvLayer& first = cache.front();
  CopyRowsArgs args{
      .num_heads = first.num_kv_heads, .block_size = first.block_size, .row_bytes = first.k.row_bytes()};
  constexpr size_t kMaxLayers = CopyRowsArgs::kMaxCaches / 2;
  for (size_t begin = 0; begin < copies.size(); begin += 3 * kEntries) {
    const auto part = copies.subspan(begin, std::min(3 * kEntries, copies.size() - begin));
    const size_t turn = next_;
    next_ = 1 - next_;
    CUDA_CHECK(cudaEventSynchronize(done_[turn]));
    auto* const entries = reinterpret_cast<CopyRowsEntry*>(entries_[turn].data());
    for (size_t i = 0; i < part.size() / 3; ++i)
      entries[i] = {.from = part[3 * i], .to = part[3 * i + 1], .rows = part[3 * i + 2]};
    args.entries = entries;
    args.num_entries = static_cast<int32_t>(part.size() / 3);
    for (size_t layer = 0; layer < cache.size(); layer += kMaxLayers) {
      const size_t count = std::min(kMaxLayers, cache.size() - layer);
      args.num_caches = static_cast<int32_t>(2 * count);
      for (size_t i = 0; i < count; ++i) {
        args.caches[2 * i] = static_cast<char*>(cache[layer + i].k.data);
        args.caches[2 * i + 1] = static_cast<char*>(cache[layer + i].v.data);
      }
      launch_copy_rows(args, stream_);
    }
    CUDA_CHECK(cudaEventRecord(done_[turn], stream_));
  }
}

}  // namespace moerun
