#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "model/blocks/dense_mlp.h"
#include "model/blocks/routed_ids.h"
#include "model/step.h"
#include "model/tensor_spec.h"
#include "model/weights.h"

namespace moerun {

/// A router and routed experts (gated by silu), spread over the engine's ranks by an exchange, and beside
/// them, where the model has one, the expert that every token takes. What differs between families is data:
/// `router`, `router_bias`, `shared_intermediate_size`, `shared_expert_gate`, the numbers. Thread contract:
/// the engine thread.
class ExpertsBlock {
 public:
  /// `shared_expert` runs the one that every token takes; it must outlive this.
  ExpertsBlock(const ModelParts& parts, DenseMlpBlock& shared_expert);

  /// From step.normed to the sum with the residual, normed by `then`. Collective over the engine, also for a
  /// rank without tokens.
  void run(const Step& step, size_t index, const LayerWeights& layer, const AddRmsNormArgs& then);

  /// What routers chose, of which the step that runs is to be copied to the host behind its layers.
  RoutedIds& routed() { return routed_; }

  /// Tokens that this rank's experts were given since the start, layer by layer [layers · num_experts].
  std::vector<uint64_t> expert_tokens() const;
  /// From the next step on, experts of a layer are where `local_slot` [num_experts] says, and
  /// `rank_of_turn` [num_experts, kExpertTurns] says who computes them. The slots are filled already, and
  /// every rank of the engine does the same between the same steps. For a shard with `rank_of_turn` alone.
  void place(int64_t layer, std::vector<int32_t> local_slot, std::vector<int32_t> rank_of_turn);

 private:
  size_t num_counts() const;
  void route(const Routed& tokens, const LayerWeights& layer);

  const ModelParts& parts_;
  DenseMlpBlock& shared_expert_;
  std::vector<ExpertSlots> slots_;  // [layers], or one for all layers where no copies will be placed
  uint64_t* expert_tokens_;         // [layers, num_experts] in device memory
  RoutedIds routed_;
  Tensor topk_weights_;  // [P, num_experts_per_tok] float32
  Tensor shared_;        // [P, hidden] the shared expert's output
};

/// How a family's checkpoints call an expert's matrices.
struct ExpertNames {
  std::string mlp;               ///< as published: "model.layers.0.block_sparse_moe"
  std::string newer_mlp;         ///< as transformers ≥ 5 calls it: "model.layers.0.mlp"
  const char *gate, *up, *down;  ///< ".w1.weight"
};

/// The names that most families have, under "model.layers.0.mlp".
ExpertNames qwen_experts(const std::string& mlp);

/// The tensors of a layer's router and experts.
void expert_tensors(const ModelConfig& config, const ExpertNames& names, int64_t layer, TensorList& out);

}  // namespace moerun
