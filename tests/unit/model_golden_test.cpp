// The model by itself on the CPU device: last prompt logits against transformers'.
#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>

#include "comm/mpi_collective.h"
#include "comm/mpi_exchange.h"
#include "device/cpu_device.h"
#include "io/hdf5.h"
#include "io/safetensors.h"
#include "model/config.h"
#include "model/families.h"
#include "model/model.h"
#include "tests/catch.h"

using namespace moerun;

namespace {

constexpr int64_t kBlockSize = 16, kMaxTokens = 512;

/// One rank with a whole checkpoint.
struct WholeModel {
  explicit WholeModel(const std::string& directory)
      : config(read_model_config(directory)),
        device(make_cpu_device()),
        collective(*device),
        experts(static_cast<int>(config.num_experts), 1),
        shard{.local_experts = experts.experts_of(0), .local_slot = experts.local_slots(0)},
        model(config.family->make({.config = &config,
                                   .shard = shard,
                                   .limits = {.max_num_batched_tokens = kMaxTokens,
                                              .max_num_seqs = 1,
                                              .max_model_len = config.max_position_embeddings,
                                              .block_size = kBlockSize,
                                              .max_logit_rows = 1},
                                   .device = device.get(),
                                   .tp = &collective,
                                   .exchange = &exchange})) {
    const Checkpoint checkpoint = Checkpoint::open(directory);
    check_tensors(config, checkpoint);
    model->set_weights(load_weights(*device, config, shard, CheckpointWeights(checkpoint), {}));
    model->allocate_cache({.num_blocks = kMaxTokens / kBlockSize, .num_states = 3});
  }

  /// Logits behind the last token of a prompt that is given in chunks of at most `chunk` tokens.
  std::vector<float> last_logits(const std::vector<int32_t>& prompt, int32_t chunk) {
    const auto length = static_cast<int32_t>(prompt.size());
    for (int32_t begin = 0; begin < length; begin += chunk) {
      const int32_t end = std::min(begin + chunk, length);
      StepPlan plan{.cu_seqlens_q = {0, end - begin},
                    .context_lens = {end},
                    .max_blocks = static_cast<int32_t>(kMaxTokens / kBlockSize),
                    .state_slots = {2},
                    .num_prefill_seqs = 1};
      // Blocks in reverse order: their places must not matter.
      for (int32_t block = plan.max_blocks; block > 0; --block) plan.block_table.push_back(block - 1);
      for (int32_t i = begin; i < end; ++i) {
        plan.tokens.push_back(prompt[static_cast<size_t>(i)]);
        plan.positions.push_back(i);
        plan.slot_mapping.push_back(plan.block_table[static_cast<size_t>(i / kBlockSize)] * kBlockSize +
                                    i % kBlockSize);
      }
      if (end == length) plan.logit_rows.push_back({.token_index = end - begin - 1, .position = end});
      model->forward(plan, {end - begin});
    }
    const auto* const logits = static_cast<const float*>(model->last_logits().data);
    return {logits, logits + config.vocab_size};
  }

  ModelConfig config;
  std::unique_ptr<Device> device;
  LocalCollective collective;
  LocalExchange exchange;
  ExpertMap experts;
  ModelShard shard;
  std::unique_ptr<Model> model;
};

}  // namespace

TEST_CASE("model: last prompt logits are transformers', whatever the chunks", "[model]") {
  for (const auto& [directory, golden] :
       {std::pair<std::string, std::string>{"data/tiny-moe", "tests/golden/tiny-moe/golden.h5"},
        {"tests/golden/shapes/bias-yarn", "tests/golden/shapes/bias-yarn/golden.h5"},
        {"tests/golden/shapes/tied-dense", "tests/golden/shapes/tied-dense/golden.h5"},
        {"tests/golden/shapes/linear-seven", "tests/golden/shapes/linear-seven/golden.h5"},
        {"tests/golden/shapes/linear-seven-stacked", "tests/golden/shapes/linear-seven/golden.h5"},
        {"tests/golden/shapes/mixtral", "tests/golden/shapes/mixtral/golden.h5"},
        {"tests/golden/shapes/mixtral-stacked", "tests/golden/shapes/mixtral/golden.h5"},
        {"tests/golden/shapes/olmoe", "tests/golden/shapes/olmoe/golden.h5"},
        {"tests/golden/shapes/qwen2-moe", "tests/golden/shapes/qwen2-moe/golden.h5"},
        {"tests/golden/shapes/glm4-moe", "tests/golden/shapes/glm4-moe/golden.h5"},
        {"tests/golden/shapes/minimax-m2", "tests/golden/shapes/minimax-m2/golden.h5"},
        {"tests/golden/shapes/ernie4-5-moe", "tests/golden/shapes/ernie4-5-moe/golden.h5"},
        {"tests/golden/shapes/qwen3-next", "tests/golden/shapes/qwen3-next/golden.h5"},
        {"tests/golden/shapes/qwen3-next-stacked", "tests/golden/shapes/qwen3-next-stacked/golden.h5"},
        {"tests/golden/shapes/qwen3-5-moe", "tests/golden/shapes/qwen3-5-moe/golden.h5"},
        {"tests/golden/shapes/qwen3-5-moe-text", "tests/golden/shapes/qwen3-5-moe-text/golden.h5"}}) {
    CAPTURE(directory);
    WholeModel whole(directory);
    const hdf5::File file = hdf5::File::open(golden);
    const hdf5::Dataset expected = file.dataset("last_prompt_logits");
    const auto offsets = file.dataset("prompt_tokens_offsets").read<int64_t>(0, expected.rows() + 1);
    for (uint64_t row = 0; row < expected.rows(); ++row) {
      CAPTURE(row);
      const auto begin = static_cast<uint64_t>(offsets[row]), end = static_cast<uint64_t>(offsets[row + 1]);
      const auto prompt = file.dataset("prompt_tokens").read<int32_t>(begin, end - begin);
      const auto logits = expected.read<float>(row, 1);
      const std::vector<float> once = whole.last_logits(prompt, kMaxTokens);
      double worst = 0;
      for (size_t i = 0; i < logits.size(); ++i)
        worst = std::max<double>(worst, std::abs(once[i] - logits[i]));
      CHECK(worst < 1e-3);
      CHECK(whole.last_logits(prompt, whole.config.has_delta_nets() ? kDeltaChunk : 5) == once);
    }
  }
}
