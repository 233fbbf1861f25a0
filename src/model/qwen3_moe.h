#pragma once
#include <cstdint>
#include <memory>
#include <vector>

#include "model/shard.h"
#include "model/weights.h"
#include "moerun/comm.h"
#include "moerun/device.h"
#include "moerun/model_config.h"
#include "moerun/step_runner.h"

namespace moerun {

/// One rank's share of `Qwen3MoeForCausalLM`: forward passes over paged keys and values. It knows devices,
/// collectives and exchanges by their interfaces alone.
/// Thread contract: the engine thread. Throws what device and exchange throw.
class Qwen3Moe : public StepRunner {
 public:
  struct Parts {
    Device* device = nullptr;
    Collective* tp = nullptr;
    ExpertExchange* exchange = nullptr;
  };
  /// Parts and config must outlive it. Allocates activations for steps within `limits`.
  Qwen3Moe(const ModelConfig& config, const ModelShard& shard, const StepLimits& limits, Parts parts);
  ~Qwen3Moe() override;
  Qwen3Moe(const Qwen3Moe&) = delete;
  Qwen3Moe& operator=(const Qwen3Moe&) = delete;

  /// Logits of the rows that were scored last, in the device's memory.
  Tensor last_logits() const { return logits_; }
  /// Tokens that this rank's experts were given since the start, layer by layer [layers · num_experts].
  std::vector<uint64_t> expert_tokens() const;

  void set_weights(Weights weights) { weights_ = std::move(weights); }
  const Weights& weights() const { return weights_; }
  /// From the next step on, experts of a layer are where `local_slot` [num_experts] says, and
  /// `rank_of_turn` [num_experts, kExpertTurns] says who computes them. The slots are filled already, and
  /// every rank of the engine does the same between the same steps. For a shard with `rank_of_turn` alone.
  void place_experts(int64_t layer, std::vector<int32_t> local_slot, std::vector<int32_t> rank_of_turn);

  /// Bytes of one block of keys and values in all layers of this rank.
  size_t block_bytes() const;
  /// Sets the key/value cache aside. Once.
  void allocate_cache(int64_t num_blocks);

  void submit(const StepPlan& plan, const std::vector<int32_t>& tokens_of_rank) override;
  StepResult collect() override;

 private:
  struct Step;  ///< one step's views of the buffers

  size_t num_expert_counts() const;
  void layers(const Step& step);
  // Each goes from step.normed to the sum with the residual, normed again: attention by its layer's own
  // post-attention norm, experts and dense layers by `then`, the norm of what follows the layer.
  void attention(const Step& step, const LayerWeights& layer, const KvLayer& kv);
  void sparse_mlp(const Step& step, size_t layer, const AddRmsNormArgs& then);
  void dense_mlp(const Step& step, const LayerWeights& layer, const AddRmsNormArgs& then);
  StepResult logits(const Step& step, const StepPlan& plan);

  const ModelConfig& config_;
  const ModelShard shard_;
  const StepLimits limits_;
  Parts parts_;
  Weights weights_;
  std::vector<ExpertSlots> slots_;  // [layers], or one for all layers where no copies will be placed
  std::vector<KvLayer> cache_;      // [layers]
  uint64_t* expert_tokens_;         // [layers, num_experts] in device memory
  std::unique_ptr<Step> step_;      // the one that was begun

  // Buffers for the largest step; P = rows of this rank's part of it, N = P · tensor.
  Tensor residual_, delta_;       // [P, hidden]
  Tensor normed_;                 // [P, hidden]
  Tensor hidden_;                 // [N, hidden] every rank's normed rows; later the output projection's sums
  Tensor qkv_, q_, heads_;        // [N, …] projections, rotated queries, what the heads found
  Tensor dense_gate_up_, dense_;  // [P, …] dense layers alone
  Ints topk_ids_;                 // [P, num_experts_per_tok]
  Tensor topk_weights_;           // [P, num_experts_per_tok] float32
  Tensor cos_, sin_;              // [max_model_len, head_dim / 2] float32
  Tensor logit_rows_, logits_;    // [max_logit_rows, hidden], [max_logit_rows, vocab] float32
};

}  // namespace moerun
