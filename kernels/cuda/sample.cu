#include "kernels/cuda/hopper.cuh"
#include "kernels/cuda/limits.h"
#include "kernels/cuda/sample.h"
#include "moerun/random.h"
#include "moerun/sampling.h"

namespace moerun {
namespace {

using namespace cuda;

constexpr int kThreads = 1024, kWarps = kThreads / kWarpSize;
constexpr int kDigitBits = 11, kBins = 1 << kDigitBits;
constexpr int kMaxListed = 2048;
constexpr int32_t kMaxVocab = 1 << (2 * kDigitBits);
static_assert(kMaxVocab == limits::kMaxVocab);
constexpr float kUnit = 1099511627776.0f;  // 2^40: probability 1 in fixed point
constexpr float kMostNoise = 16.7f;        // gumbel() is below 24·ln 2
constexpr float kMostFloat = 3.402823466e38f;

// ---------------------------------------------------------------- kernels

/// A value and its id in one number that orders as (value descending, id ascending) does when the largest is
/// first.
__device__ uint64_t rank_key(float value, int32_t id) {
  const uint32_t bits = __float_as_uint(value + 0.0f);  // −0 counts as 0
  const uint32_t ordered = bits & 0x80000000u ? ~bits : bits | 0x80000000u;
  return static_cast<uint64_t>(ordered) << 32 | ~static_cast<uint32_t>(id);
}
__device__ float value_of(uint64_t key) {
  const auto ordered = static_cast<uint32_t>(key >> 32);
  return __uint_as_float(ordered & 0x80000000u ? ordered & 0x7fffffffu : ~ordered);
}
__device__ int32_t id_of(uint64_t key) { return static_cast<int32_t>(~static_cast<uint32_t>(key)); }

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
__device__ float bounded(float logit) { return fminf(fmaxf(logit, -kMostFloat), kMostFloat); }
__device__ float tempered(float logit, float temperature) {
  return logit == -INFINITY ? logit : bounded(logit / temperature);
}

/// The largest of the block's values, the same in each thread.
__device__ uint64_t block_max(Shared& shared, uint64_t value) {
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
__device__ V block_sum(Shared& shared, V value) {
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
__device__ void for_each_quad(const Logits& logits, int32_t vocab, F f) {
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
__device__ void for_each_logit(const Logits& logits, int32_t vocab, F f) {
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
__device__ bool all_finite(Shared& shared, const OddLogits& odd) {
  return block_sum(shared, odd.count) == static_cast<unsigned long long>(shared.num_banned) &&
         !shared.bad_touched;
}

/// The key of the greatest logit, divided by the temperature; 0 where the mask lets none be chosen.
__device__ uint64_t largest(Shared& shared, const Logits& row, int32_t vocab, float temperature,
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
__device__ void find_bin(Shared& shared, unsigned long long target) {
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
__device__ void add_to_bin(unsigned long long& bin, unsigned long long value) {
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
__device__ uint64_t select(Shared& shared, const Logits& row, int32_t vocab, float temperature,
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

/// Probabilities in fixed point, whose sums have no order: of all keys from `cut` on, and of those above
/// `key`.
struct Mass {
  unsigned long long total, above;
};
__device__ Mass mass_above(Shared& shared, const LogitRow& row, const Logits& logits, int32_t vocab,
                           float highest, uint64_t cut, uint64_t key) {
  Mass mass{};
  for_each_quad(logits, vocab, [&](int32_t first, float4 quad, uint32_t open) {
    const float logit[4] = {quad.x, quad.y, quad.z, quad.w};
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if ((open >> i & 1) == 0) continue;
      const float value = tempered(logit[i], row.draw.temperature);
      const uint64_t own = rank_key(value, first + i);
      if (own < cut || first + i >= vocab) continue;
      const auto weight = static_cast<unsigned long long>(expf(value - highest) * kUnit);
      mass.total += weight;
      if (own > key) mass.above += weight;
    }
  });
  return {block_sum(shared, mass.total), block_sum(shared, mass.above)};
}

/// The key of the largest value with noise among the keys from `cut` on that min_p allows; 0 where the mask
/// lets none be chosen. Logits that are not finite go to `odd`; where there are such beside bans, the key
/// means nothing.
///
/// Few ids can become the best: their noise would have to reach what the best one so far leaves open. Noise
/// of g or more needs a uniform number u with 1 − u ≤ 1 − exp(−e^−g) ≤ e^−g. `reach` is lower than the best
/// by more than all rounding here, the reciprocal of the temperature included; a NaN never excludes.
__device__ uint64_t noisiest(Shared& shared, const LogitRow& row, const Logits& logits, int32_t vocab,
                             float highest, uint64_t cut, OddLogits& odd) {
  __syncthreads();
  if (threadIdx.x == 0) shared.best_seen = static_cast<uint32_t>(rank_key(-INFINITY, 0) >> 32);
  __syncthreads();
  const DrawKey key = draw_key(row.draw.seed, row.stream, row.position);
  const float scale = 1.0f / row.draw.temperature;
  uint64_t best = 0;
  for_each_quad(logits, vocab, [&](int32_t first, float4 quad, uint32_t may) {
    odd.look(first, quad, vocab);
    if (may == 0) return;
    const float seen = value_of(uint64_t{*static_cast<volatile uint32_t*>(&shared.best_seen)} << 32);
    const float reach = seen - (1e-3f + 1e-6f * fabsf(seen));
    const float logit[4] = {quad.x, quad.y, quad.z, quad.w};
    float open[4];
    bool all_too_low = true;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      open[i] = logit[i] * scale - reach;
      all_too_low &= open[i] < -kMostNoise;
    }
    if (all_too_low) return;
    const Philox4x32 words = draw_words(key, static_cast<uint32_t>(first / 4));
    bool better = false;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int32_t id = first + i;
      if (open_unit(~words.word[i]) > __expf(open[i]) || id >= vocab || (may >> i & 1) == 0) continue;
      const float value = tempered(logit[i], row.draw.temperature);
      if (cut > 0 && rank_key(value, id) < cut) continue;
      if (row.draw.min_p > 0 && expf(value - highest) < row.draw.min_p) continue;
      const uint64_t candidate = rank_key(value + gumbel(words.word[i]), id);
      if (candidate > best) best = candidate, better = true;
    }
    if (better) atomicMax(&shared.best_seen, static_cast<uint32_t>(best >> 32));
  });
  return block_max(shared, best);
}

struct Drawn {
  int32_t token;
  TokenFault fault;
};

/// top_p by rejection: whoever has too much probability above it is not allowed, nor is anyone below it, so
/// the next try is among those above. That takes about 1 − log(top_p) tries.
__device__ Drawn draw(Shared& shared, const LogitRow& row, const Logits& logits, int32_t vocab) {
  const bool greedy = row.draw.temperature < kGreedyTemperature;
  OddLogits odd;
  bool looked = false;  // the first pass over the row tells whether there is anything to draw
  const auto fault = [&](uint64_t best) {
    looked = true;
    if (!all_finite(shared, odd)) return TokenFault::not_finite;
    return best == 0 || value_of(best) == -INFINITY ? TokenFault::all_banned : TokenFault::none;
  };
  float highest = 0;
  if (greedy || row.draw.top_p < 1 || row.draw.min_p > 0) {
    const uint64_t best = largest(shared, logits, vocab, greedy ? 1 : row.draw.temperature, odd);
    if (const TokenFault wrong = fault(best); wrong != TokenFault::none) return {-1, wrong};
    if (greedy) return {id_of(best), TokenFault::none};
    highest = tempered(logits.at[id_of(best)], row.draw.temperature);
  }
  uint64_t lowest = 0;  // that top_k allows
  if (row.draw.top_k > 0 && row.draw.top_k < vocab)
    lowest = select(shared, logits, vocab, row.draw.temperature,
                    static_cast<unsigned long long>(row.draw.top_k), [](uint64_t, float) { return 1ull; });
  for (uint64_t cut = lowest;;) {
    const uint64_t best = noisiest(shared, row, logits, vocab, highest, cut, odd);
    if (!looked)
      if (const TokenFault wrong = fault(best); wrong != TokenFault::none) return {-1, wrong};
    const int32_t id = id_of(best);
    if (row.draw.top_p >= 1) return {id, TokenFault::none};
    const uint64_t key = rank_key(tempered(logits.at[id], row.draw.temperature), id);
    const Mass mass = mass_above(shared, row, logits, vocab, highest, lowest, key);
    const double allowed = ceil(static_cast<double>(row.draw.top_p) * static_cast<double>(mass.total));
    if (mass.above < max(1ull, static_cast<unsigned long long>(allowed))) return {id, TokenFault::none};
    cut = key + 1;
  }
}

/// Biases, repetition, frequency and presence penalties, then bans, in place; what was there goes to `saved`.
__device__ void change(Shared& shared, const SampleArgs& args, const LogitRow& row, float* logits) {
  for (int32_t i = row.bias_begin + static_cast<int32_t>(threadIdx.x); i < row.bias_end; i += kThreads) {
    const float logit = logits[args.tokens[i]];
    args.saved[i] = logit;
    if (!(fabsf(logit) <= kMostFloat)) shared.bad_touched = true;
    logits[args.tokens[i]] = bounded(logit + __int_as_float(args.counts[i]));
  }
  __syncthreads();
  for (int32_t i = row.history_begin + static_cast<int32_t>(threadIdx.x); i < row.history_end;
       i += kThreads) {
    float logit = logits[args.tokens[i]];
    args.saved[i] = logit;
    if (!(fabsf(logit) <= kMostFloat)) shared.bad_touched = true;
    const auto count = static_cast<float>(args.counts[i]);
    logit = logit > 0 ? logit / row.draw.repetition_penalty : logit * row.draw.repetition_penalty;
    logit = __fsub_rn(logit, __fmul_rn(row.draw.frequency_penalty, count));
    if (count > 0) logit -= row.draw.presence_penalty;
    logits[args.tokens[i]] = bounded(logit);
  }
  __syncthreads();
  if (threadIdx.x == 0) {  // few, and maybe the same one twice
    for (int32_t i = row.banned_begin; i < row.banned_end; ++i) {
      const float logit = logits[args.tokens[i]];
      args.saved[i] = logit;
      logits[args.tokens[i]] = -INFINITY;
      // The model's own −∞ is no ban: it stays uncounted, and so shows.
      if (logit != -INFINITY) ++shared.num_banned;
      if (!(logit <= kMostFloat)) shared.bad_touched = true;
    }
  }
  __syncthreads();
}

__device__ void restore(const SampleArgs& args, const LogitRow& row, float* logits) {
  __syncthreads();
  if (threadIdx.x == 0)
    for (int32_t i = row.banned_end; i-- > row.banned_begin;) logits[args.tokens[i]] = args.saved[i];
  __syncthreads();
  for (int32_t i = row.history_begin + static_cast<int32_t>(threadIdx.x); i < row.history_end; i += kThreads)
    logits[args.tokens[i]] = args.saved[i];
  __syncthreads();
  for (int32_t i = row.bias_begin + static_cast<int32_t>(threadIdx.x); i < row.bias_end; i += kThreads)
    logits[args.tokens[i]] = args.saved[i];
  __syncthreads();
}

__device__ float logprob_of(float logit, double normaliser) {
  return static_cast<float>(fmax(logit - normaliser, -static_cast<double>(kMostFloat)));
}

/// The n best by the model's own logits, best first.
__device__ void list_best(Shared& shared, const Logits& logits, int32_t vocab, int32_t n, double normaliser,
                          SampledRow& result) {
  n = min(n, vocab);
  const uint64_t cut = n < vocab ? select(shared, logits, vocab, 1, static_cast<unsigned long long>(n),
                                          [](uint64_t, float) { return 1ull; })
                                 : 0;
  if (threadIdx.x == 0) shared.num_listed = 0;
  __syncthreads();
  for_each_logit(logits, vocab, [&](int32_t id, float logit) {
    const uint64_t key = rank_key(logit, id);
    if (key >= cut) shared.listed[atomicAdd(&shared.num_listed, 1)] = key;
  });
  __syncthreads();
  if (threadIdx.x < static_cast<unsigned>(n)) {
    const uint64_t own = shared.listed[threadIdx.x];
    int place = 0;
    for (int32_t i = 0; i < n; ++i) place += shared.listed[i] > own;
    result.top_tokens[place] = id_of(own);
    result.top_logprobs[place] = logprob_of(logits.at[id_of(own)], normaliser);
  }
}

/// A block a row.
__global__ void __launch_bounds__(kThreads, 1) sample_kernel(const __grid_constant__ SampleArgs args) {
  __shared__ Shared shared;
  dependency_wait();
  dependents_launch();
  const LogitRow row = args.rows[blockIdx.x];
  float* const logits = args.logits + static_cast<int64_t>(blockIdx.x) * args.vocab;
  SampledRow& result = args.results[blockIdx.x];
  if (threadIdx.x == 0) {
    shared.num_banned = 0;
    shared.bad_touched = false;
  }
  __syncthreads();
  Drawn drawn{row.target, TokenFault::none};
  if (row.target < 0) {
    const bool changes = row.history_end > row.history_begin || row.banned_end > row.banned_begin ||
                         row.bias_end > row.bias_begin;
    if (changes) change(shared, args, row, logits);
    const uint32_t* const mask =
        row.mask < 0 ? nullptr : args.masks + static_cast<int64_t>(row.mask) * ((args.vocab + 31) / 32);
    drawn = draw(shared, row, {logits, mask}, args.vocab);
    if (changes) restore(args, row, logits);
  }
  if (threadIdx.x == 0) {
    result.token = drawn.token;
    result.fault = drawn.fault;
  }
  if (drawn.fault != TokenFault::none || row.draw.logprobs < 0) return;

  OddLogits odd;
  const Logits all{logits, nullptr};  // log-probabilities are of the model's own logits
  const float highest = logits[id_of(largest(shared, all, args.vocab, 1, odd))];
  if (row.target >= 0 && !all_finite(shared, odd)) {
    if (threadIdx.x == 0) result.fault = TokenFault::not_finite;
    return;
  }
  double sum = 0;
  for_each_logit(all, args.vocab, [&](int32_t, float logit) { sum += expf(logit - highest); });
  const double normaliser = highest + log(block_sum(shared, sum));
  if (threadIdx.x == 0) result.logprob = logprob_of(logits[drawn.token], normaliser);
  if (row.draw.logprobs > 0)
    list_best(shared, all, args.vocab, min(row.draw.logprobs, kMaxLogprobs), normaliser, result);
}

}  // namespace

// ---------------------------------------------------------------- launchers

void launch_sample(const SampleArgs& args, cudaStream_t stream) {
  if (args.vocab < 1 || args.vocab > kMaxVocab)
    throw Error("sample takes vocabularies of up to 4194304 tokens, not " + std::to_string(args.vocab));
  if (args.num_rows == 0) return;
  launch_dependent(sample_kernel, static_cast<unsigned>(args.num_rows), kThreads, 0, stream, args);
}

}  // namespace moerun
