#pragma once
#include <cstdint>
#include <vector>

#include "model/blocks/attention.h"
#include "model/blocks/delta_net.h"
#include "model/blocks/dense_mlp.h"
#include "model/blocks/experts.h"
#include "model/step.h"
#include "model/weights.h"
#include "moerun/step_runner.h"

namespace moerun {

/// One rank's share of a decoder: forward passes over what its layers keep of sequences. What families share
/// is here and in src/model/blocks; how a layer is put together is the family's own (`layer`). It knows
/// devices, collectives and exchanges by their interfaces alone.
/// Thread contract: the engine thread. Throws what device and exchange throw.
class Model : public StepRunner {
 public:
  /// Allocates activations for steps within the limits.
  explicit Model(ModelParts parts);
  Model(const Model&) = delete;
  Model& operator=(const Model&) = delete;

  /// Logits of the rows that were scored last, in the device's memory.
  Tensor last_logits() const { return logits_; }
  const ExpertsBlock& experts() const { return experts_; }
  ExpertsBlock& experts() { return experts_; }

  void set_weights(Weights weights) { weights_ = std::move(weights); }
  Weights& weights() { return weights_; }

  /// Bytes of one block of what is kept of sequences, in all layers of this rank.
  size_t block_bytes() const;
  struct CacheSize {
    int64_t num_blocks = 0;  ///< of keys and values
    int64_t num_states = 0;  ///< slots of layers with gated delta nets
  };
  /// Sets the cache aside. Once.
  void allocate_cache(const CacheSize& size);

  void submit(const StepPlan& plan, const std::vector<int32_t>& tokens_of_rank) override;
  StepResult collect() override;

 protected:
  /// One layer: from step.normed to the sum with the residual, normed by `then`, the norm of what follows it.
  /// A rank whose step is empty takes part in what is collective.
  virtual void layer(const Step& step, size_t index, const AddRmsNormArgs& then) = 0;

  const LayerWeights& weights_of(size_t layer) const { return weights_.layers[layer]; }
  const ModelConfig& config() const { return *parts_.config; }
  /// What a layer keeps: of attention, and of a gated delta net.
  const KvLayer& cache_of(size_t layer) const { return cache_[place_of_layer_[layer]]; }
  const DeltaState& state_of(size_t layer) const { return states_[place_of_layer_[layer]]; }

 private:
  DType cache_dtype() const;
  void layers(const Step& step);
  void move_kept(const StepPlan& plan);
  StepResult logits(const Step& step, const StepPlan& plan);

  const ModelParts parts_;
  Weights weights_;
  std::vector<KvLayer> cache_;          // of layers with attention
  std::vector<DeltaState> states_;      // of those with a gated delta net
  std::vector<size_t> place_of_layer_;  // [layers] in the one or the other
  Step step_;                           // the one that was begun

  // Buffers for the largest step; P = rows of this rank's part of it, N = P · tensor.
  Tensor residual_, delta_;  // [P, hidden]
  Tensor normed_;            // [P, hidden]
  Tensor hidden_;            // [N, hidden] every rank's normed rows; later the output projection's sums

 protected:
  AttentionBlock attention_;
  DeltaNetBlock delta_net_;
  DenseMlpBlock dense_mlp_;
  ExpertsBlock experts_;

 private:
  Tensor logit_rows_, logits_;  // [max_logit_rows, hidden], [max_logit_rows, vocab] float32
};

}  // namespace moerun
