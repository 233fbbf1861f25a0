#include "engine/routed_store.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "moerun/error.h"

namespace moerun {

RoutedStore::RoutedStore(const RoutedShape& shape, const KvCache::Size& size)
    : shape_(shape),
      token_bytes_(shape.token_bytes()),
      block_size_(static_cast<size_t>(size.block_size)),
      blocks_(static_cast<size_t>(size.num_blocks)),
      host_blocks_(static_cast<size_t>(size.num_host_blocks)) {}

uint8_t* RoutedStore::written(int32_t block) {
  Block& at = blocks_.at(static_cast<size_t>(block));
  if (!at) at = std::make_unique_for_overwrite<uint8_t[]>(block_size_ * token_bytes_);
  return at.get();
}

void RoutedStore::apply(const StepPlan& plan, std::span<const uint8_t> routed) {
  if (routed.size() != plan.tokens.size() * token_bytes_)
    throw Error(
        fmt::format("a step of {} tokens came back with {} bytes of routed experts, {} for each belong",
                    plan.tokens.size(), routed.size(), token_bytes_));
  // What leaves a block, or comes back to one, leaves nothing behind that anybody needs.
  const auto move = [&](const std::vector<int32_t>& pairs) {
    for (size_t i = 0; i < pairs.size(); i += 2)
      std::swap(blocks_.at(static_cast<size_t>(pairs[i])),
                host_blocks_.at(static_cast<size_t>(pairs[i + 1])));
  };
  move(plan.swap_out);
  move(plan.swap_in);
  for (size_t i = 0; i < plan.copies.size(); i += 3)
    std::memcpy(written(plan.copies[i + 1]), written(plan.copies[i]),
                static_cast<size_t>(plan.copies[i + 2]) * token_bytes_);
  for (size_t token = 0; token < plan.slot_mapping.size(); ++token) {
    const auto slot = static_cast<size_t>(plan.slot_mapping[token]);
    std::memcpy(written(static_cast<int32_t>(slot / block_size_)) + slot % block_size_ * token_bytes_,
                routed.data() + token * token_bytes_, token_bytes_);
  }
}

std::vector<uint8_t> RoutedStore::read(const KvBlocks& blocks, int32_t begin, int32_t end) const {
  std::vector<uint8_t> out;
  out.reserve(static_cast<size_t>(std::max(end - begin, 0)) * token_bytes_);
  for (auto at = static_cast<size_t>(begin); at < static_cast<size_t>(end);) {
    const size_t offset = at % block_size_,
                 count = std::min(block_size_ - offset, static_cast<size_t>(end) - at);
    const Block& block = blocks_.at(static_cast<size_t>(blocks.device.at(at / block_size_)));
    if (!block) throw Error("a sequence holds a block whose routed experts never came");
    out.insert(out.end(), block.get() + offset * token_bytes_, block.get() + (offset + count) * token_bytes_);
    at += count;
  }
  return out;
}

}  // namespace moerun
