#include "kernels/cuda/sample.h"
#include "kernels/cuda/sample_select.cuh"
#include "moerun/random.h"
#include "moerun/sampling.h"

namespace moerun {
namespace {

using namespace cuda;
using namespace cuda::sampling;

constexpr float kUnit = 1099511627776.0f;  // 2^40: probability 1 in fixed point
constexpr float kMostNoise = 16.7f;        // gumbel() is below 24·ln 2

// ---------------------------------------------------------------- kernels

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
