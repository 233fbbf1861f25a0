#pragma once
#include <cstdint>

#include "moerun/plan.h"

namespace moerun::bench {

/// What of a step costs time.
struct StepWork {
  double tokens = 0;          ///< that go through the layers
  double context_tokens = 0;  ///< whose keys and values decoding sequences read, over all of them
  double query_keys = 0;      ///< pairs of a prompt's token and a key that it attends to
  double drawn = 0;           ///< rows of logits
  double swapped_blocks = 0;  ///< moved to the host's memory or back
};
StepWork work_of(const StepPlan& plan);

/// A MODEL of a step's time, never a measurement: one H200, Qwen3-30B-A3B in bfloat16, a rank that holds all
/// experts. Its coefficients are figures that were measured (each names where it stands); how they are put
/// together is not. Kernels are counted one after the other; a real step overlaps some of them.
namespace step_cost {

/// Of the experts' products and what goes with them in one layer, by the step's tokens.
double experts_s(double tokens);
/// Of everything else in a layer that counts tokens.
double dense_s(double tokens);
/// Of a layer's attention.
double attention_s(const StepWork& work);
/// Of a whole step, copies to and from the host's memory included.
double step_s(const StepWork& work, double block_bytes);

}  // namespace step_cost

/// The least time in which a job's steps can be done by that model, however they are scheduled: attention
/// counts the same in every schedule, and what counts tokens is cheapest in the fewest steps, all alike
/// (experts_s and dense_s are convex, or as good as that).
struct WholeWork {
  StepWork sum;
  double steps = 0;  ///< at least
};
double least_s(const WholeWork& work, double block_bytes);

}  // namespace moerun::bench
