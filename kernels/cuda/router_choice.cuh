#pragma once
// From a token's logits to its experts and their weights, by one warp.
#include "kernels/cuda/common.cuh"
#include "kernels/cuda/limits.h"
#include "kernels/cuda/router.h"

namespace moerun::cuda {

constexpr int kMaxExperts = limits::kMaxExperts, kMaxK = limits::kMaxRouterK;
static_assert(limits::kMaxRouterGroups <= kWarpSize && kMaxK <= kWarpSize);

/// Whether choose_plain does what the rule says.
inline bool is_plain(const MoeRouterArgs& args) {
  const RouterRule& rule = args.rule;
  return rule.score == RouterRule::Score::softmax && !args.bias && rule.num_groups == 1 &&
         rule.added_to_sum == 0 && rule.least_sum == 0 && rule.scale == 1;
}

/// An integer that is ordered as the numbers are. −0 counts as 0.
__device__ __forceinline__ uint32_t ordered_key(float value) {
  const uint32_t bits = __float_as_uint(value + 0.0f);
  return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

/// The sum over the warp, the same in each lane.
__device__ __forceinline__ float warp_sum(float value) {
  for (int d = kWarpSize / 2; d > 0; d /= 2) value += __shfl_xor_sync(kFullMask, value, d);
  return value;
}
__device__ __forceinline__ float warp_max(float value) {
  for (int d = kWarpSize / 2; d > 0; d /= 2) value = fmaxf(value, __shfl_xor_sync(kFullMask, value, d));
  return value;
}

/// Softmax and top-k of one token by one warp, up to 32·kEach experts, whose logits are in shared memory.
template <int kEach>
__device__ void choose_plain(const MoeRouterArgs& args, int32_t token, const float* logits) {
  const int lane = threadIdx.x % kWarpSize;
  float own[kEach];  // of experts lane, lane + 32, …
  float highest = -INFINITY;
#pragma unroll
  for (int i = 0; i < kEach; ++i) {
    const int e = lane + i * kWarpSize;
    if (e < args.num_experts) highest = fmaxf(highest, own[i] = logits[e]);
  }
  highest = warp_max(highest);
  float sum = 0;
  uint32_t keys[kEach];  // ordered as the logits are
#pragma unroll
  for (int i = 0; i < kEach; ++i) {
    if (lane + i * kWarpSize < args.num_experts) {
      sum += expf(own[i] - highest);
      keys[i] = ordered_key(own[i]);
    }
  }
  sum = warp_sum(sum);

  float weight = 0, chosen_sum = 0;  // lane i keeps the i-th choice
  int id = 0;
  uint32_t taken = 0;  // of this lane's experts
  for (int i = 0; i < args.k; ++i) {
    uint32_t key = 0;
    int expert = kMaxExperts;
#pragma unroll
    for (int j = 0; j < kEach; ++j) {
      const int e = lane + j * kWarpSize;
      if (e < args.num_experts && !(taken >> j & 1) && (expert == kMaxExperts || keys[j] > key))
        key = keys[j], expert = e;
    }
    const uint32_t best = __reduce_max_sync(kFullMask, key);
    const int best_id = __reduce_min_sync(kFullMask, key == best ? expert : kMaxExperts);
    if (expert == best_id) taken |= 1u << best_id / kWarpSize;
    const float logit = __uint_as_float(best & 0x80000000u ? best & 0x7fffffffu : ~best);
    const float probability = expf(logit - highest) / sum;
    chosen_sum += probability;
    if (lane == i) weight = probability, id = best_id;
  }
  if (lane < args.k) {
    args.topk_ids[token * args.k + lane] = id;
    args.topk_weights[token * args.k + lane] = args.rule.normalise ? weight / chosen_sum : weight;
  }
}

/// The groups that are taken, a bit each, by the sum of the two largest of each group's choices.
__device__ __forceinline__ uint32_t choose_groups(const RouterRule& rule, int num_experts,
                                                  const float* choice) {
  const int lane = threadIdx.x % kWarpSize, size = num_experts / rule.num_groups;
  uint32_t key = 0;  // below that of every number
  if (lane < rule.num_groups) {
    float best = -INFINITY, second = -INFINITY;
    for (int e = lane * size; e < (lane + 1) * size; ++e) {
      second = fmaxf(second, fminf(best, choice[e]));
      best = fmaxf(best, choice[e]);
    }
    key = ordered_key(best + second);
  }
  uint32_t taken = 0;
  for (int i = 0; i < rule.groups_taken; ++i) {
    const bool open = lane < rule.num_groups && !(taken >> lane & 1);
    const uint32_t most = __reduce_max_sync(kFullMask, open ? key : 0);
    const int group = __reduce_min_sync(kFullMask, open && key == most ? lane : kWarpSize - 1);
    taken |= 1u << group;
  }
  return taken;
}

/// The whole of RouterRule. `logits` is this warp's own row of shared memory, [num_experts].
template <int kEach>
__device__ void choose_by_rule(const MoeRouterArgs& args, int32_t token, float* logits) {
  const RouterRule& rule = args.rule;
  const int lane = threadIdx.x % kWarpSize;
  const bool softmax = rule.score == RouterRule::Score::softmax;
  float highest = 0, sum = 1;
  if (softmax) {
    highest = -INFINITY, sum = 0;
    for (int e = lane; e < args.num_experts; e += kWarpSize) highest = fmaxf(highest, logits[e]);
    highest = warp_max(highest);
    for (int e = lane; e < args.num_experts; e += kWarpSize) sum += expf(logits[e] - highest);
    sum = warp_sum(sum);
  }
  float own[kEach];  // scores of experts lane, lane + 32, …
#pragma unroll
  for (int i = 0; i < kEach; ++i) {
    const int e = lane + i * kWarpSize;
    if (e >= args.num_experts) continue;
    own[i] = softmax ? expf(logits[e] - highest) / sum : 1.0f / (1.0f + expf(-logits[e]));
    logits[e] = args.bias ? own[i] + args.bias[e] : own[i];  // by which experts are chosen
  }
  __syncwarp();
  const uint32_t groups = rule.num_groups > 1 ? choose_groups(rule, args.num_experts, logits) : 1;
  const int group_size = args.num_experts / rule.num_groups;
  uint32_t keys[kEach];
#pragma unroll
  for (int i = 0; i < kEach; ++i) {
    const int e = lane + i * kWarpSize;
    keys[i] = e < args.num_experts && (groups >> e / group_size & 1) ? ordered_key(logits[e]) : 0;
  }
  float weight = 0, chosen_sum = 0;  // lane i keeps the i-th choice
  int id = 0;
  uint32_t taken = 0;  // of this lane's experts
  for (int i = 0; i < args.k; ++i) {
    uint32_t key = 0;
    int expert = kMaxExperts;
    float score = 0;
#pragma unroll
    for (int j = 0; j < kEach; ++j) {
      const int e = lane + j * kWarpSize;
      if (e < args.num_experts && !(taken >> j & 1) && (expert == kMaxExperts || keys[j] > key))
        key = keys[j], expert = e, score = own[j];
    }
    const uint32_t best = __reduce_max_sync(kFullMask, key);
    const int best_id = __reduce_min_sync(kFullMask, key == best ? expert : kMaxExperts);
    if (expert == best_id) taken |= 1u << best_id / kWarpSize;
    score = __shfl_sync(kFullMask, score, best_id % kWarpSize);
    chosen_sum += score;
    if (lane == i) weight = score, id = best_id;
  }
  if (rule.normalise) {
    const float divisor = chosen_sum + rule.added_to_sum;
    weight /= divisor < rule.least_sum ? rule.least_sum : divisor;
  }
  if (lane < args.k) {
    args.topk_ids[token * args.k + lane] = id;
    args.topk_weights[token * args.k + lane] = weight * rule.scale;
  }
}

template <int kEach, bool kPlain>
__device__ __forceinline__ void choose(const MoeRouterArgs& args, int32_t token, float* logits) {
  if constexpr (kPlain)
    choose_plain<kEach>(args, token, logits);
  else
    choose_by_rule<kEach>(args, token, logits);
}

}  // namespace moerun::cuda
