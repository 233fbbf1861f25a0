#include "model/memory_estimate.h"

#include "model/config.h"
#include "tests/catch.h"

using namespace moerun;

TEST_CASE("memory estimate: Qwen3-30B-A3B on one GPU", "[model]") {
  ModelConfig config = read_model_config("data/qwen3-30b-a3b");
  ModelShard shard;
  for (int32_t expert = 0; expert < config.num_experts; ++expert) {
    shard.local_experts.push_back(expert);
    shard.local_slot.push_back(expert);
  }
  const WeightBytes weights = weight_bytes(config, shard, DType::bfloat16);
  CHECK(weights.all == 2.0 * 30'532'122'624);  // the parameters of the published checkpoint
  CHECK(weights.embedding == 2.0 * 151'936 * 2048);
  CHECK(weights.redundant == 0);

  const double room = key_value_bytes_on_gpu(config, weights, 8192, 80e9);
  CHECK(room > 0);
  CHECK(key_value_bytes_on_gpu(config, weights, 8192, 60e9) < 0);
  CHECK(key_value_bytes_on_gpu(config, weights, 8192, 90e9) - room == Approx(10e9));
  CHECK(key_value_bytes_on_gpu(config, weights, 2048, 80e9) > room);
  // A row more in the vocabulary takes a row of the LM head on the GPU; the embedding's is on the host.
  config.vocab_size += 1000;
  CHECK(room - key_value_bytes_on_gpu(config, weight_bytes(config, shard, DType::bfloat16), 8192, 80e9) ==
        Approx(1000.0 * 2048 * 2));
  config.vocab_size -= 1000;
  shard.redundant_slots = 2;
  const WeightBytes with_copies = weight_bytes(config, shard, DType::bfloat16);
  CHECK(with_copies.redundant == 2.0 * 2 * 48 * 3 * 768 * 2048);
  CHECK(with_copies.all == weights.all + with_copies.redundant);
}
