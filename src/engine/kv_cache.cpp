#include "engine/kv_cache.h"

#include <algorithm>

namespace moerun {

void KvCache::begin_step() {
  moves_ = {};
  blocks_.give_back(copied_);
}

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

size_t KvCache::num_shared(const KvBlocks& blocks) const {
  size_t count = 0;
  while (count < blocks.device.size() && blocks_.num_users(blocks.device[count]) > 1) ++count;
  return count;
}

void KvCache::give_back_from(KvBlocks& blocks, size_t first) {
  std::vector<int32_t> rest(blocks.device.begin() + static_cast<ptrdiff_t>(first), blocks.device.end());
  blocks_.give_back(rest);
  blocks.device.resize(first);
}

bool KvCache::swap_out(KvBlocks& blocks, int32_t tokens) {
  const auto count = static_cast<size_t>(blocks_for(tokens));
  const size_t shared = std::min(num_shared(blocks), count);
  if (static_cast<int64_t>(count - shared) > host_blocks_.num_free()) return false;
  for (size_t i = shared; i < count; ++i) {
    blocks.host.push_back(host_blocks_.take());
    moves_.swap_out.insert(moves_.swap_out.end(), {blocks.device[i], blocks.host.back()});
  }
  give_back_from(blocks, shared);
  return true;
}

int32_t KvCache::release_own(KvBlocks& blocks) {
  const size_t shared = num_shared(blocks);
  give_back_from(blocks, shared);
  return static_cast<int32_t>(shared) * block_size_;
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

bool KvCache::share(const KvBlocks& from, int32_t tokens, KvBlocks& to) {
  const auto whole = static_cast<size_t>(tokens / block_size_);
  const int32_t rest = tokens % block_size_;
  if (rest > 0 && blocks_.num_free() == 0) return false;
  for (size_t i = 0; i < whole; ++i) {
    blocks_.use(from.device[i]);
    to.device.push_back(from.device[i]);
  }
  if (rest == 0) return true;
  blocks_.use(from.device[whole]);
  copied_.push_back(from.device[whole]);
  to.device.push_back(blocks_.take());
  moves_.copies.insert(moves_.copies.end(), {from.device[whole], to.device.back(), rest});
  return true;
}

void KvCache::keep(const KvBlocks& blocks, int32_t tokens, KvBlocks& kept) {
  const auto count = static_cast<ptrdiff_t>(blocks_for(tokens));
  kept.device.assign(blocks.device.begin(), blocks.device.begin() + count);
  for (const int32_t block : kept.device) blocks_.keep(block);
}

}  // namespace moerun
