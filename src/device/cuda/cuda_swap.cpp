#include "device/cuda/cuda_swap.h"

#include <algorithm>

namespace moerun {

namespace {
constexpr int64_t kChunkBlocks = 32;
}

SwapSpace::SwapSpace(cudaStream_t stream, int64_t num_host_blocks)
    : stream_(stream),
      num_host_blocks_(num_host_blocks),
      chunks_(static_cast<size_t>((num_host_blocks + kChunkBlocks - 1) / kChunkBlocks)),
      entries_{PinnedBuffer(kEntries * sizeof(SwapEntry)), PinnedBuffer(kEntries * sizeof(SwapEntry))} {}

char* SwapSpace::host_block(int64_t block, size_t bytes) {
  if (block < 0 || block >= num_host_blocks_)
    throw Error(fmt::format("host block {} of {}", block, num_host_blocks_));
  auto& chunk = chunks_[static_cast<size_t>(block / kChunkBlocks)];
  if (!chunk) try {
      chunk = std::make_unique<PinnedBuffer>(static_cast<size_t>(kChunkBlocks) * bytes);
    } catch (const Error& error) {
      throw Error(
          fmt::format("the host has no memory left for preempted sequences: lower "
                      "memory.swap_space_gib ({})",
                      error.what()));
    }
  return chunk->data() + static_cast<size_t>(block % kChunkBlocks) * bytes;
}

void SwapSpace::swap(std::span<const KvLayer> cache, std::span<const int32_t> pairs, Device::Swap way) {
  const KvLayer& first = cache.front();
  SwapBlocksArgs args{
      .piece_bytes = static_cast<size_t>(first.num_kv_heads * first.block_size) * first.k.row_bytes(),
      .out = way == Device::Swap::out};
  const size_t block_bytes = 2 * cache.size() * args.piece_bytes;
  constexpr size_t kMaxLayers = SwapBlocksArgs::kMaxCaches / 2;
  for (size_t begin = 0; begin < pairs.size(); begin += 2 * kEntries) {
    const auto part = pairs.subspan(begin, std::min(2 * kEntries, pairs.size() - begin));
    const size_t turn = next_;
    next_ = 1 - next_;
    CUDA_CHECK(cudaEventSynchronize(done_[turn]));
    auto* const entries = reinterpret_cast<SwapEntry*>(entries_[turn].data());
    for (size_t i = 0; i < part.size() / 2; ++i)
      entries[i] = {.host = host_block(part[2 * i + 1], block_bytes), .block = part[2 * i]};
    args.entries = entries;
    args.num_entries = static_cast<int32_t>(part.size() / 2);
    for (size_t layer = 0; layer < cache.size(); layer += kMaxLayers) {
      const size_t count = std::min(kMaxLayers, cache.size() - layer);
      args.first_cache = static_cast<int32_t>(2 * layer);
      args.num_caches = static_cast<int32_t>(2 * count);
      for (size_t i = 0; i < count; ++i) {
        args.caches[2 * i] = static_cast<char*>(cache[layer + i].k.data);
        args.caches[2 * i + 1] = static_cast<char*>(cache[layer + i].v.data);
      }
      launch_swap_blocks(args, stream_);
    }
    CUDA_CHECK(cudaEventRecord(done_[turn], stream_));
  }
}

}  // namespace moerun
