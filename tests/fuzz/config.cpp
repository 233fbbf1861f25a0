#include "model/config.h"

#include "model/generation_config.h"
#include "model/tensor_spec.h"
#include "tests/fuzz/harness.h"

namespace moerun::fuzz {

/// config.json. One that is taken has numbers that its tensors can be listed from.
void read_config(std::string_view bytes) {
  const ModelConfig config = parse_model_config(std::string(bytes), {}, "config.json");
  for (const int64_t positive :
       {config.hidden_size, config.num_hidden_layers, config.num_attention_heads, config.num_key_value_heads,
        config.head_dim, config.vocab_size, config.max_position_embeddings})
    check(positive > 0, "the sizes of a model are above 0");
  for (const TensorSpec& tensor : tensors_of(config, config.dtype))
    check(tensor.rows > 0 && tensor.cols > 0, "a tensor's sizes are above 0");
}

/// generation_config.json beside the tiny model's config.json.
void read_generation_config(std::string_view bytes) {
  static const std::string tiny = read_all("data/tiny-moe/config.json");
  const GenerationConfig generation = parse_generation_config(std::string(bytes), "generation_config.json");
  sampling_not_taken(generation, {}, "generation_config.json");
  const ModelConfig config = parse_model_config(tiny, generation, "config.json");
  for (const int64_t id : config.eos_token_ids)
    check(id >= 0 && id < config.vocab_size, "end-of-sequence ids are in the vocabulary");
}

}  // namespace moerun::fuzz
