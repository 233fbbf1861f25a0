// What one block does with a row of logits: keys that order as (value descending, id ascending) does, the
// largest of them, and the last one that is needed, digit by digit. sample.cu draws by them.
#pragma once
#include "kernels/cuda/hopper.cuh"
#include "kernels/cuda/limits.h"
#include "kernels/cuda/sample.h"
#include "moerun/sampling.h"

namespace moerun::cuda::sampling {

constexpr int kThreads = 1024, kWarps = kThreads / kWarpSize;
constexpr int kDigitBits = 11, kBins = 1 << kDigitBits;
constexpr int kMaxListed = 2048;
constexpr int32_t kMaxVocab = 1 << (2 * kDigitBits);
static_assert(kMaxVocab == limits::kMaxVocab);
constexpr float kMostFloat = 3.402823466e38f;

/// A value and its id in one number that orders as (value descending, id ascending) does when the largest is
/// first.
__device__ inline uint64_t rank_key(float value, int32_t id) {
  const uint32_t bits = __float_as_uint(value + 0.0f);  // −0 counts as 0
  const uint32_t ordered = bits & 0x80000000u ? ~bits : bits | 0x80000000u;
  return static_cast<uint64_t>(ordered) << 32 | ~static_cast<uint32_t>(id);
}
__device__ inline float value_of(uint64_t key) {
  const auto ordered = static_cast<uint32_t>(key >> 32);
  return __uint_as_float(ordered & 0x80000000u ? ordered & 0x7fffffffu : ~ordered);
}
__device__ inline int32_t id_of(uint64_t key) { return static_cast<int32_t>(~static_cast<uint32_t>(key)); }

struct Shared {
  unsigned long long bins[kBins];
  unsigned long long of_warp[kWarps];
  unsigned long long above, in_bin;
  uint64_t listed[kMaxListed];  ///< what is left to choose from, once that is little
  int32_t bin, num_listed;
  uint32_t best_seen;  ///< upper half of the rank key of the best draw so far
  int32_t num_banned;  ///< ids whose logits are −∞ since change()
  bool bad_touched;    ///< change() found a logit that is not finite
};

/// What penalties and temperatures carry past float32's range stays at its end: only bans are −∞.
__device__ inline float bounded(float logit) { return fminf(fmaxf(logit, -kMostFloat), kMostFloat); }
__device__ inline float tempered(float logit, float temperature) {
  return logit == -INFINITY ? logit : bounded(logit / temperature);
}

/// The largest of the block's values, the same in each thread.
__device__ inline uint64_t block_max(Shared& shared, uint64_t value) {
  const auto larger = [](uint64_t a, uint64_t b) { return a > b ? a : b; };
  for (int d = kWarpSize / 2; d > 0; d /= 2) value = larger(value, __shfl_xor_sync(kFullMask, value, d));
  __syncthreads();
  if (threadIdx.x % kWarpSize == 0) shared.of_warp[threadIdx.x / kWarpSize] = value;
  __syncthreads();
  value = shared.of_warp[threadIdx.x % kWarpSize];
  for (int d = kWarpSize / 2; d > 0; d /= 2) value = larger(value, __shfl_xor_sync(kFullMask, value, d));
  return value;
}

template <class V>
__device__ inline V block_sum(Shared& shared, V value) {
  static_assert(sizeof(V) == sizeof(shared.of_warp[0]));
  V* const of_warp = reinterpret_cast<V*>(shared.of_warp);
  for (int d = kWarpSize / 2; d > 0; d /= 2) value += __shfl_xor_sync(kFullMask, value, d);
  __syncthreads();
  if (threadIdx.x % kWarpSize == 0) of_warp[threadIdx.x / kWarpSize] = value;
  __syncthreads();
  value = of_warp[threadIdx.x % kWarpSize];
  for (int d = kWarpSize / 2; d > 0; d /= 2) value += __shfl_xor_sync(kFullMask, value, d);
  return value;
}

/// A row of logits, and the bits of what of it can be chosen; null: all.
struct Logits {
  const float* at;
  const uint32_t* mask;

  /// Bits of the four ids from `first`, a multiple of four, on.
  __device__ uint32_t open(int32_t first) const { return mask ? mask[first / 32] >> first % 32 & 15u : 15u; }
};

/// Calls f(first id, four logits, bits of those that can be chosen) for this thread's share of the row (the
/// noise comes in quads of ids), the next four on their way meanwhile. Ids past the end have NaN.
template <class F>
__device__ inline void for_each_quad(const Logits& logits, int32_t vocab, F f) {
  const float* const row = logits.at;
  const bool aligned = vocab % 4 == 0;  // then each row is
  const auto load = [&](int32_t first) {
    if (aligned && first < vocab) return *reinterpret_cast<const float4*>(row + first);
    float4 v = make_float4(NAN, NAN, NAN, NAN);
    if (first < vocab) v.x = row[first];
    if (first + 1 < vocab) v.y = row[first + 1];
    if (first + 2 < vocab) v.z = row[first + 2];
    if (first + 3 < vocab) v.w = row[first + 3];
    return v;
  };
  const auto open = [&](int32_t first) { return first < vocab ? logits.open(first) : 0u; };
  float4 next = load(threadIdx.x * 4);
  uint32_t next_open = open(threadIdx.x * 4);
  for (int32_t first = threadIdx.x * 4; first < vocab; first += kThreads * 4) {
    const float4 v = next;
    const uint32_t open_here = next_open;
    next = load(first + kThreads * 4);
    next_open = open(first + kThreads * 4);
    f(first, v, open_here);
  }
}

/// Those that cannot be chosen as −∞.
template <class F>
__device__ inline void for_each_logit(const Logits& logits, int32_t vocab, F f) {
  for_each_quad(logits, vocab, [&](int32_t first, float4 v, uint32_t open) {
    f(first, open & 1 ? v.x : -INFINITY);
    if (first + 1 < vocab) f(first + 1, open & 2 ? v.y : -INFINITY);
    if (first + 2 < vocab) f(first + 2, open & 4 ? v.z : -INFINITY);
    if (first + 3 < vocab) f(first + 3, open & 8 ? v.w : -INFINITY);
  });
}

/// Logits that are not finite: how many are −∞, and 2^32 for each that is NaN or +∞.
struct OddLogits {
  unsigned long long count = 0;

  __device__ void look(int32_t first, const float4& v, int32_t vocab) {
    // Each float4 of the row comes by here: one comparison a logit where all is well.
    if (fabsf(v.x) <= kMostFloat && fabsf(v.y) <= kMostFloat && fabsf(v.z) <= kMostFloat &&
        fabsf(v.w) <= kMostFloat)
      return;
    const float logit[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if (first + i >= vocab || fabsf(logit[i]) <= kMostFloat) continue;
      count += logit[i] == -INFINITY ? 1ull : 1ull << 32;
    }
  }
};
/// Whether the model's own logits are all finite: those that are −∞ are as many as were banned.
__device__ inline bool all_finite(Shared& shared, const OddLogits& odd) {
  return block_sum(shared, odd.count) == static_cast<unsigned long long>(shared.num_banned) &&
         !shared.bad_touched;
}

/// The key of the greatest logit, divided by the temperature; 0 where the mask lets none be chosen.
__device__ inline uint64_t largest(Shared& shared, const Logits& row, int32_t vocab, float temperature,
                                   OddLogits& odd) {
  uint64_t best = 0;
  for_each_quad(row, vocab, [&](int32_t first, const float4& v, uint32_t open) {
    odd.look(first, v, vocab);
    const float logit[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if (first + i >= vocab || (open >> i & 1) == 0) continue;
      const uint64_t key = rank_key(tempered(logit[i], temperature), first + i);
      best = key > best ? key : best;
    }
  });
  return block_max(shared, best);
}

/// The bin, from the highest down, in which the running sum reaches `target`, and the sum above it.
__device__ inline void find_bin(Shared& shared, unsigned long long target) {
  constexpr int kEach = kBins / kThreads;
  const int lane = threadIdx.x % kWarpSize, warp = threadIdx.x / kWarpSize;
  const int first = kBins - 1 - static_cast<int>(threadIdx.x) * kEach;
  unsigned long long own = 0;
  for (int i = 0; i < kEach; ++i) own += shared.bins[first - i];
  unsigned long long inclusive = own;
  for (int d = 1; d < kWarpSize; d *= 2) {
    const unsigned long long other = __shfl_up_sync(kFullMask, inclusive, d);
    if (lane >= d) inclusive += other;
  }
  if (lane == kWarpSize - 1) shared.of_warp[warp] = inclusive;
  __syncthreads();
  unsigned long long before = 0;
  for (int w = 0; w < warp; ++w) before += shared.of_warp[w];
  unsigned long long above = before + inclusive - own;
  for (int i = 0; i < kEach; ++i) {
    const unsigned long long in_bin = shared.bins[first - i];
    if (above < target && above + in_bin >= target) {
      shared.bin = first - i;
      shared.above = above;
      shared.in_bin = in_bin;
    }
    above += in_bin;
  }
  __syncthreads();
}

/// += by 32-bit additions, which shared memory has in hardware; the bits do not depend on who comes first.
__device__ inline void add_to_bin(unsigned long long& bin, unsigned long long value) {
  auto* const words = reinterpret_cast<unsigned*>(&bin);
  const auto low = static_cast<unsigned>(value);
  unsigned high = static_cast<unsigned>(value >> 32);
  if (low > 0 && atomicAdd(words, low) + low < low) ++high;
  if (high > 0) atomicAdd(words + 1, high);
}

/// The key of the last one that is needed, best first, for the weights to sum up to `target`: digit by digit,
/// three for the value, two for the id. weigh(key, value) is an integer, so the sums are the same in any
/// order.
template <class Weigh>
__device__ inline uint64_t select(Shared& shared, const Logits& row, int32_t vocab, float temperature,
                                  unsigned long long target, Weigh weigh) {
  constexpr int kShift[] = {53, 42, 32, kDigitBits, 0};
  constexpr int kWidth[] = {11, 11, 10, kDigitBits, kDigitBits};
  uint64_t prefix = 0, known = 0;
  bool listed = false;
  if (threadIdx.x == 0) shared.num_listed = 0;
  for (int digit = 0; digit < 5; ++digit) {
    if (digit == 3) {  // ids are below 2^22: the rest of their complement is ones
      prefix |= ~uint64_t{kMaxVocab - 1} & 0xffffffffu;
      known = ~uint64_t{kMaxVocab - 1};
    }
    const int shift = kShift[digit];
    const uint64_t ones = (uint64_t{1} << kWidth[digit]) - 1;
    for (int i = threadIdx.x; i < kBins; i += kThreads) shared.bins[i] = 0;
    __syncthreads();
    const auto count = [&](uint64_t key, float value) {
      if ((key & known) != prefix) return;
      const unsigned long long weight = weigh(key, value);
      if (weight == 0) return;
      add_to_bin(shared.bins[key >> shift & ones], weight);
      if (digit == 0 || listed) return;
      const int at = atomicAdd(&shared.num_listed, 1);
      if (at < kMaxListed) shared.listed[at] = key;
    };
    if (listed) {
      for (int i = threadIdx.x; i < shared.num_listed; i += kThreads)
        count(shared.listed[i], value_of(shared.listed[i]));
    } else {
      for_each_logit(row, vocab, [&](int32_t id, float logit) {
        const float value = tempered(logit, temperature);
        count(rank_key(value, id), value);
      });
    }
    __syncthreads();
    find_bin(shared, target);
    target -= shared.above;
    prefix |= static_cast<uint64_t>(shared.bin) << shift;
    known |= ones << shift;
    const bool whole_bin = shared.in_bin == target;
    if (digit > 0 && !listed) listed = shared.num_listed <= kMaxListed;
    __syncthreads();
    if (whole_bin) break;
    if (!listed && threadIdx.x == 0) shared.num_listed = 0;
  }
  return prefix;
}

}  // namespace moerun::cuda::sampling
