#pragma once
#include "model/shard.h"
#include "moerun/comm.h"
#include "moerun/device.h"
#include "moerun/plan.h"
#include "moerun/routed_shape.h"
#include "moerun/step_runner.h"

namespace moerun {

/// What a model is made from. Config, device, collective and exchange must outlive it.
struct ModelParts {
  const ModelConfig* config = nullptr;
  ModelShard shard;
  StepLimits limits;
  Device* device = nullptr;
  Collective* tp = nullptr;
  ExpertExchange* exchange = nullptr;
  RoutedShape routed;  ///< what of routers' choices steps give back

  /// Rows of a rank's part of the largest step.
  int64_t part_rows() const { return part_of_step(limits.max_num_batched_tokens, shard.tensor, 0).padded; }
  float eps() const { return static_cast<float>(config->rms_norm_eps); }
};

/// One step's views of the buffers that layers share.
struct Step {
  const StepPlan* host_plan = nullptr;
  DevicePlan plan;
  TokenPart part;
  Tensor residual, delta, normed;  ///< [part.padded, hidden]
  Tensor hidden;                   ///< [part.padded · tensor, hidden]

  bool any() const { return plan.num_tokens > 0; }
  /// How attention, experts and dense layers end: delta joins the residual, and the sum is normed.
  AddRmsNormArgs norm(const Tensor& weight, float eps) const {
    return {.residual = residual, .delta = delta, .weight = weight, .eps = eps, .out = normed};
  }
};

}  // namespace moerun
