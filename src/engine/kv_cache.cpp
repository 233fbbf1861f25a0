#include "engine/kv_cache.h"

namespace moerun {

bool KvCache::grow(KvBlocks& blocks, int32_t tokens) {
  const int64_t missing = blocks_for(tokens) - static_cast<int64_t>(blocks.device.size());
  if (missing > blocks_.num_free()) return false;
  for (int64_t i = 0; i < missing; ++i) blocks.device.push_back(blocks_.take());
  return true;
}

void KvCache::release(KvBlocks& blocks) {
  blocks_.give_back(blocks.device);
  host_blocks_.give_back(blocks.host);
}

bool KvCache::swap_out(KvBlocks& blocks, int32_t tokens) {
  const auto count = static_cast<size_t>(blocks_for(tokens));
  if (static_cast<int64_t>(count) > host_blocks_.num_free()) return false;
  for (size_t i = 0; i < count; ++i) {
    blocks.host.push_back(host_blocks_.take());
    moves_.swap_out.insert(moves_.swap_out.end(), {blocks.device[i], blocks.host.back()});
  }
  blocks_.give_back(blocks.device);
  return true;
}

bool KvCache::swap_in(KvBlocks& blocks) {
  if (static_cast<int64_t>(blocks.host.size()) > blocks_.num_free()) return false;
  for (const int32_t host : blocks.host) {
    blocks.device.push_back(blocks_.take());
    moves_.swap_in.insert(moves_.swap_in.end(), {blocks.device.back(), host});
  }
  host_blocks_.give_back(blocks.host);  // nothing leaves for the host after this in the same step
  return true;
}

}  // namespace moerun
