#include "step_cost.h"

#include <algorithm>
#include <array>

namespace moerun::bench {

namespace {

constexpr double kLayers = 48;

/// kernels/README.md, H200, FP8 weights: the bfloat16 row of the experts by tokens, sustained.
struct Point {
  double tokens, us;
};
constexpr std::array<Point, 9> kExperts{{{16, 276},
                                         {64, 278},
                                         {256, 290},
                                         {512, 303},
                                         {1024, 338},
                                         {2048, 396},
                                         {4096, 644},
                                         {8192, 1212},
                                         {16384, 2404}}};
/// Issue 17, a step of 7,400 tokens: QKV 217, output projection 201, combine and norm 98, router 59, rope 54,
/// norm 32 and permutation 40 µs.
constexpr double kDenseUs = 217 + 201 + 98 + 59 + 54 + 32 + 40, kDenseTokens = 7400;
/// The same operations of a step of one token, whose time is that of their weights and launches:
/// kernels/README.md, an H100's rows of 1 to 170 tokens.
constexpr double kFewestUs = 10 + 10 + 4 + 6 + 3 + 2 + 5;
/// kernels/README.md, H200: decode attention of 256 × 1,024 reads 3.97 TB/s; a layer's key and value of a
/// token are 2 × 4 heads × 128 × 2 bytes.
constexpr double kDecodeBytesPerS = 3.97e12, kKeyValueBytes = 2.0 * 4 * 128 * 2;
/// kernels/README.md, prefill attention in clusters: 426 to 607 TFLOP/s from 1,024 to 131,072 keys.
constexpr double kPrefillFlopsPerS = 480e12, kFlopsAQueryKey = 4.0 * 32 * 128;
/// kernels/README.md, H100: the LM head's product takes 282 µs for some two hundred rows and `sample` 63;
/// rows of the embedding 156; a step's launches and what the host does between steps 0.1 ms (src/README.md).
constexpr double kStepUs = 225 + 40 + 156 + 100, kDrawnUs = 0.7;
/// What a GPU's bus brings to and from the host's memory: PCIe 5, 16 lanes, less than its 63 GB/s.
constexpr double kBusBytesPerS = 50e9;

}  // namespace

StepWork work_of(const StepPlan& plan) {
  StepWork work{.tokens = static_cast<double>(plan.num_tokens()),
                .drawn = static_cast<double>(plan.logit_rows.size()),
                .swapped_blocks = static_cast<double>(plan.swap_in.size() + plan.swap_out.size()) / 2};
  for (size_t s = 0; s < plan.context_lens.size(); ++s) {
    const double queries = plan.cu_seqlens_q[s + 1] - plan.cu_seqlens_q[s], keys = plan.context_lens[s];
    if (s < static_cast<size_t>(plan.num_prefill_seqs))
      work.query_keys += queries * (keys - queries) + queries * (queries + 1) / 2;
    else
      work.context_tokens += keys;
  }
  return work;
}

namespace step_cost {

double experts_s(double tokens) {
  if (tokens <= kExperts.front().tokens) return kExperts.front().us * 1e-6;
  const auto* to = std::find_if(kExperts.begin(), std::prev(kExperts.end()),
                                [&](const Point& point) { return tokens < point.tokens; });
  const auto* from = std::prev(to);
  return (from->us + (tokens - from->tokens) * (to->us - from->us) / (to->tokens - from->tokens)) * 1e-6;
}

double dense_s(double tokens) { return (kFewestUs + tokens * (kDenseUs - kFewestUs) / kDenseTokens) * 1e-6; }

double attention_s(const StepWork& work) {
  return work.context_tokens * kKeyValueBytes / kDecodeBytesPerS +
         work.query_keys * kFlopsAQueryKey / kPrefillFlopsPerS;
}

double step_s(const StepWork& work, double block_bytes) {
  return kLayers * (experts_s(work.tokens) + dense_s(work.tokens) + attention_s(work)) +
         (kStepUs + work.drawn * kDrawnUs) * 1e-6 + work.swapped_blocks * block_bytes / kBusBytesPerS;
}

}  // namespace step_cost

double least_s(const WholeWork& work, double block_bytes) {
  StepWork mean = work.sum;
  for (double* of : {&mean.tokens, &mean.context_tokens, &mean.query_keys, &mean.drawn}) *of /= work.steps;
  return work.steps * step_cost::step_s(mean, block_bytes);
}

}  // namespace moerun::bench
