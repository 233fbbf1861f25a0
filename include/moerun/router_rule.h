#pragma once
#include <cstdint>

namespace moerun {

/// How a token's experts and their weights follow from its logits over all experts. All in float32.
struct RouterRule {
  enum class Score {
    softmax,  ///< over all experts (Hugging Face `Qwen3MoeTopKRouter`)
    sigmoid   ///< each by itself (Hugging Face `Glm4MoeTopkRouter`)
  } score = Score::softmax;
  /// Experts are in this many groups of neighbours, of which the `groups_taken` with the largest sum of their
  /// two best are chosen from. One group: from all.
  int32_t num_groups = 1, groups_taken = 1;
  bool normalise = false;  ///< divide the chosen scores by max(their sum + added_to_sum, least_sum)
  float added_to_sum = 0;  ///< Glm4MoeTopkRouter's 1e-20
  float least_sum = 0;     ///< `moe_norm_min` of Ernie4_5_MoeTopKRouter
  float scale = 1;         ///< times this, last: `routed_scaling_factor`
};

}  // namespace moerun
