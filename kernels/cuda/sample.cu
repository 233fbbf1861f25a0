#include "kernels/cuda/hopper.cuh"
#include "kernels/cuda/sample.h"
#include "moerun/random.h"

namespace moerun {
namespace {

using namespace cuda;

constexpr int kThreads = 1024, kWarps = kThreads / kWarpSize;
constexpr int kDigitBits = 11, kBins = 1 << kDigitBits;
constexpr int kMaxListed = 2048;
constexpr int32_t kMaxVocab = 1 << (2 * kDigitBits);
constexpr float kUnit = 1099511627776.0f;  // 2^40: probability 1 in fixed point
constexpr float kMostNoise = 16.7f;        // gumbel() is below 24·ln 2

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
  double sums[kWarps];
  unsigned long long above, in_bin, total;
  uint64_t listed[kMaxListed];  ///< what is left to choose from, once that is little
  int32_t bin, num_listed;
};

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

__device__ double block_sum(Shared& shared, double value) {
  for (int d = kWarpSize / 2; d > 0; d /= 2) value += __shfl_xor_sync(kFullMask, value, d);
  __syncthreads();
  if (threadIdx.x % kWarpSize == 0) shared.sums[threadIdx.x / kWarpSize] = value;
  __syncthreads();
  value = shared.sums[threadIdx.x % kWarpSize];
  for (int d = kWarpSize / 2; d > 0; d /= 2) value += __shfl_xor_sync(kFullMask, value, d);
  return value;
}

/// Calls f(id, logit) for this thread's share of the row: quads of ids, as the noise comes in quads.
template <class F>
__device__ void for_each_logit(const float* row, int32_t vocab, F f) {
  const bool whole = vocab % 4 == 0;
  for (int32_t first = threadIdx.x * 4; first < vocab; first += kThreads * 4) {
    if (whole) {
      const float4 v = *reinterpret_cast<const float4*>(row + first);
      f(first, v.x), f(first + 1, v.y), f(first + 2, v.z), f(first + 3, v.w);
    } else {
      for (int32_t id = first; id < min(first + 4, vocab); ++id) f(id, row[id]);
    }
  }
}

__device__ uint64_t largest(Shared& shared, const float* row, int32_t vocab, float temperature) {
  uint64_t best = 0;
  for_each_logit(row, vocab, [&](int32_t id, float logit) {
    const uint64_t key = rank_key(logit / temperature, id);
    best = key > best ? key : best;
  });
  return block_max(shared, best);
}

/// The bin, from the highest down, in which the running sum reaches `target`; the sum above it; the total.
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
  if (threadIdx.x == kThreads - 1) shared.total = before + inclusive;
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
/// order. `fraction` > 0 makes the target that part of all weights.
template <class Weigh>
__device__ uint64_t select(Shared& shared, const float* row, int32_t vocab, float temperature,
                           unsigned long long target, double fraction, Weigh weigh) {
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
        const float value = logit / temperature;
        count(rank_key(value, id), value);
      });
    }
    __syncthreads();
    if (digit == 0 && fraction > 0) {
      find_bin(shared, 1);  // for the total
      target = max(1ull, static_cast<unsigned long long>(ceil(fraction * static_cast<double>(shared.total))));
      __syncthreads();
    }
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

/// The lowest key that top_k and top_p allow.
__device__ uint64_t lowest_allowed(Shared& shared, const LogitRow& row, const float* logits, int32_t vocab,
                                   float highest) {
  uint64_t cut = 0;
  if (row.top_k > 0 && row.top_k < vocab)
    cut = select(shared, logits, vocab, row.temperature, static_cast<unsigned long long>(row.top_k), 0,
                 [](uint64_t, float) { return 1ull; });
  if (row.top_p < 1) {
    const uint64_t of_top_p =
        select(shared, logits, vocab, row.temperature, 0, static_cast<double>(row.top_p),
               [&](uint64_t key, float value) {
                 return key < cut ? 0ull : static_cast<unsigned long long>(expf(value - highest) * kUnit);
               });
    cut = max(cut, of_top_p);
  }
  return cut;
}

__device__ int32_t draw(Shared& shared, const LogitRow& row, const float* logits, int32_t vocab) {
  if (row.temperature <= 0) return id_of(largest(shared, logits, vocab, 1));
  uint64_t cut = 0;
  float highest = 0;
  if (row.top_k > 0 || row.top_p < 1 || row.min_p > 0) {
    const int32_t best = id_of(largest(shared, logits, vocab, row.temperature));
    highest = logits[best] / row.temperature;
    cut = lowest_allowed(shared, row, logits, vocab, highest);
  }
  const DrawKey key = draw_key(row.seed, row.row, row.position);
  uint64_t best = 0;
  float best_value = -INFINITY;
  int32_t group = -1;
  Philox4x32 words{};
  for_each_logit(logits, vocab, [&](int32_t id, float logit) {
    const float value = logit / row.temperature;
    if (value + kMostNoise < best_value) return;  // no noise can make up for it
    if (cut > 0 && rank_key(value, id) < cut) return;
    if (row.min_p > 0 && expf(value - highest) < row.min_p) return;
    if (group != id / 4) {
      group = id / 4;
      words = draw_words(key, static_cast<uint32_t>(group));
    }
    const int word = id % 4;
    const float noisy = value + gumbel(word < 2 ? (word == 0 ? words.word[0] : words.word[1])
                                                : (word == 2 ? words.word[2] : words.word[3]));
    const uint64_t candidate = rank_key(noisy, id);
    if (candidate > best) best = candidate, best_value = noisy;
  });
  return id_of(block_max(shared, best));
}

/// Repetition, frequency and presence penalties, then bans, in place; what was there goes to `saved`.
__device__ void penalise(const SampleArgs& args, const LogitRow& row, float* logits) {
  for (int32_t i = row.history_begin + static_cast<int32_t>(threadIdx.x); i < row.history_end;
       i += kThreads) {
    float logit = logits[args.tokens[i]];
    args.saved[i] = logit;
    const auto count = static_cast<float>(args.counts[i]);
    logit = logit > 0 ? logit / row.repetition_penalty : logit * row.repetition_penalty;
    logit = __fsub_rn(logit, __fmul_rn(row.frequency_penalty, count));
    if (count > 0) logit -= row.presence_penalty;
    logits[args.tokens[i]] = logit;
  }
  __syncthreads();
  if (threadIdx.x == 0) {  // few, and maybe the same one twice
    for (int32_t i = row.banned_begin; i < row.banned_end; ++i) {
      args.saved[i] = logits[args.tokens[i]];
      logits[args.tokens[i]] = -INFINITY;
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
}

/// The n best by the model's own logits, best first.
__device__ void list_best(Shared& shared, const float* logits, int32_t vocab, int32_t n, double normaliser,
                          SampledRow& result) {
  n = min(n, vocab);
  const uint64_t cut = n < vocab ? select(shared, logits, vocab, 1, static_cast<unsigned long long>(n), 0,
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
    result.top_logprobs[place] = static_cast<float>(logits[id_of(own)] - normaliser);
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
  int32_t token = row.target;
  if (row.target < 0) {
    const bool changes = row.history_end > row.history_begin || row.banned_end > row.banned_begin;
    if (changes) penalise(args, row, logits);
    token = draw(shared, row, logits, args.vocab);
    if (changes) restore(args, row, logits);
  }
  if (threadIdx.x == 0) result.token = token;
  if (row.num_top_logprobs < 0) return;

  const float highest = logits[id_of(largest(shared, logits, args.vocab, 1))];
  double sum = 0;
  for_each_logit(logits, args.vocab, [&](int32_t, float logit) { sum += expf(logit - highest); });
  const double normaliser = highest + log(block_sum(shared, sum));
  if (threadIdx.x == 0) result.logprob = static_cast<float>(logits[token] - normaliser);
  if (row.num_top_logprobs > 0)
    list_best(shared, logits, args.vocab, min(row.num_top_logprobs, kMaxLogprobs), normaliser, result);
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
