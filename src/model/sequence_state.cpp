#include "model/sequence_state.h"

#include "model/families.h"

namespace moerun {

std::vector<KeptOfLayer> kept_of_sequence(const ModelConfig& config, const ModelShard& shard) {
  return config.family->keeps(config, shard);
}

int64_t key_value_block_bytes(const ModelConfig& config, const ModelShard& shard, int64_t block_size,
                              DType dtype) {
  int64_t bytes = 0;
  for (const KeptOfLayer& layer : kept_of_sequence(config, shard))
    if (const auto* const paged = std::get_if<PagedKeyValues>(&layer))
      bytes += paged->block_bytes(block_size, dtype);
  return bytes;
}

int64_t state_slot_bytes(const ModelConfig& config, const ModelShard& shard, DType dtype) {
  int64_t bytes = 0;
  for (const KeptOfLayer& layer : kept_of_sequence(config, shard))
    if (const auto* const state = std::get_if<FixedState>(&layer)) bytes += state->bytes(dtype);
  return bytes;
}

}  // namespace moerun
