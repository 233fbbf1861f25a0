#include "model/sequence_state.h"

#include "model/families.h"

namespace moerun {

std::vector<PagedKeyValues> kept_of_sequence(const ModelConfig& config, const ModelShard& shard) {
  return config.family->keeps(config, shard);
}

int64_t key_value_block_bytes(const ModelConfig& config, const ModelShard& shard, int64_t block_size,
                              DType dtype) {
  int64_t bytes = 0;
  for (const PagedKeyValues& layer : kept_of_sequence(config, shard))
    bytes += layer.block_bytes(block_size, dtype);
  return bytes;
}

}  // namespace moerun
