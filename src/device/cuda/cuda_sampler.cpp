#include "device/cuda/cuda_sampler.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <utility>

#include "kernels/cuda/sample.h"

namespace moerun {

namespace {

// Ids of one launch. A launch with more is cut in two, so this is speed, not a limit, above what one row
// can have.
constexpr int64_t kMinIds = int64_t{1} << 20;
constexpr int64_t kMostMasks = 256;

int64_t ids_of(const LogitRow& row) {
  return row.target >= 0 ? 0
                         : row.history_end - row.history_begin + row.banned_end - row.banned_begin +
                               row.bias_end - row.bias_begin;
}

}  // namespace

Sampler::Sampler(Arena& arena, cudaStream_t stream, const StreamWait& wait, const StepLimits& limits)
    : stream_(stream),
      wait_(wait),
      room_{std::max<int64_t>(limits.max_logit_rows, 1),
            // Seen and biased ids are distinct; each may be banned twice, as an end-of-sequence and as a stop
            // token.
            std::max(kMinIds, std::min(limits.max_model_len, limits.vocab_size) + 3 * limits.vocab_size),
            std::min(std::max<int64_t>(limits.max_logit_rows, 1), kMostMasks), (limits.vocab_size + 31) / 32},
      device_(static_cast<char*>(arena.allocate(room_.bytes(), "sampling"))),
      saved_(static_cast<float*>(arena.allocate(static_cast<size_t>(room_.ids) * 4, "sampling"))),
      device_results_(arena.allocate(static_cast<size_t>(room_.rows) * sizeof(SampledRow), "sampling")),
      host_(room_.bytes()),
      host_results_(static_cast<size_t>(room_.rows) * sizeof(SampledRow)) {}

size_t Sampler::group(std::span<const LogitRow> rows) const {
  size_t count = 0;
  int64_t ids = 0, masks = 0;
  int32_t last_mask = -1;
  while (count < rows.size() && static_cast<int64_t>(count) < room_.rows) {
    ids += ids_of(rows[count]);
    masks += rows[count].mask >= 0 && std::exchange(last_mask, rows[count].mask) != rows[count].mask;
    if (ids > room_.ids || masks > room_.masks) break;
    ++count;
  }
  if (count == 0)
    throw Error(fmt::format("a row of logits has {} seen, banned and biased tokens; room was made for {}",
                            ids_of(rows[0]), room_.ids));
  return count;
}

std::vector<TokenResult> Sampler::sample(Tensor logits, std::span<const LogitRow> rows,
                                         const StepPlan& plan) {
  std::vector<TokenResult> results;
  results.reserve(rows.size());
  for (size_t begin = 0; begin < rows.size();) {
    const size_t count = group(rows.subspan(begin));
    run(logits.slice(static_cast<int64_t>(begin), static_cast<int64_t>(begin + count)),
        rows.subspan(begin, count), plan, results);
    begin += count;
  }
  return results;
}

void Sampler::put_ids(const StepPlan& plan, int32_t* ids, int32_t* counts, int32_t& at, LogitRow& row) {
  const int32_t seen = row.history_end - row.history_begin, banned = row.banned_end - row.banned_begin,
                biased = row.bias_end - row.bias_begin;
  std::copy_n(plan.history_tokens.begin() + row.history_begin, seen, ids + at);
  std::copy_n(plan.history_counts.begin() + row.history_begin, seen, counts + at);
  row.history_begin = at;
  row.history_end = at += seen;
  std::copy_n(plan.banned_tokens.begin() + row.banned_begin, banned, ids + at);
  std::fill_n(counts + at, banned, 0);
  row.banned_begin = at;
  row.banned_end = at += banned;
  for (int32_t i = 0; i < biased; ++i) {
    const TokenBias& one = plan.biases[static_cast<size_t>(row.bias_begin + i)];
    ids[at + i] = one.token;
    counts[at + i] = std::bit_cast<int32_t>(one.bias);
  }
  row.bias_begin = at;
  row.bias_end = at += biased;
}

void Sampler::run(Tensor logits, std::span<const LogitRow> rows, const StepPlan& plan,
                  std::vector<TokenResult>& results) {
  Layout used{.rows = static_cast<int64_t>(rows.size()), .mask_words = plan.mask_words};
  int32_t last_mask = -1;
  for (const LogitRow& row : rows) {
    used.ids += ids_of(row);
    used.masks += row.mask >= 0 && std::exchange(last_mask, row.mask) != row.mask;
  }
  if (used.mask_words > room_.mask_words)
    throw Error(fmt::format("masks have {} words; room was made for {}", used.mask_words, room_.mask_words));
  auto* const host_rows = reinterpret_cast<LogitRow*>(host_.data());
  auto* const ids = reinterpret_cast<int32_t*>(host_.data() + used.ids_at());
  auto* const counts = reinterpret_cast<int32_t*>(host_.data() + used.counts_at());
  auto* const masks = reinterpret_cast<uint32_t*>(host_.data() + used.masks_at());
  int32_t at = 0, mask = -1;
  last_mask = -1;
  for (size_t i = 0; i < rows.size(); ++i) {
    LogitRow row = rows[i];
    if (row.target < 0) put_ids(plan, ids, counts, at, row);
    if (row.mask >= 0) {
      if (std::exchange(last_mask, row.mask) != row.mask)
        std::copy_n(plan.mask_of(row), used.mask_words, masks + ++mask * used.mask_words);
      row.mask = mask;
    }
    host_rows[i] = row;
  }
  CUDA_CHECK(cudaMemcpyAsync(device_, host_.data(), used.bytes(), cudaMemcpyHostToDevice, stream_));
  launch_sample({.logits = static_cast<float*>(logits.data),
                 .rows = reinterpret_cast<const LogitRow*>(device_),
                 .tokens = reinterpret_cast<const int32_t*>(device_ + used.ids_at()),
                 .counts = reinterpret_cast<const int32_t*>(device_ + used.counts_at()),
                 .masks = reinterpret_cast<const uint32_t*>(device_ + used.masks_at()),
                 .saved = saved_,
                 .results = static_cast<SampledRow*>(device_results_),
                 .num_rows = static_cast<int32_t>(rows.size()),
                 .vocab = static_cast<int32_t>(logits.cols)},
                stream_);
  CUDA_CHECK(cudaMemcpyAsync(host_results_.data(), device_results_, rows.size() * sizeof(SampledRow),
                             cudaMemcpyDeviceToHost, stream_));
  wait_.wait();
  const auto* const sampled = reinterpret_cast<const SampledRow*>(host_results_.data());
  for (size_t i = 0; i < rows.size(); ++i) {
    TokenResult& result =
        results.emplace_back(TokenResult{.token = sampled[i].token, .fault = sampled[i].fault});
    if (result.fault != TokenFault::none || rows[i].draw.logprobs < 0) continue;
    result.logprob = sampled[i].logprob;
    const int64_t n = std::min<int64_t>(std::min(rows[i].draw.logprobs, kMaxLogprobs), logits.cols);
    result.top_tokens.assign(sampled[i].top_tokens, sampled[i].top_tokens + n);
    result.top_logprobs.assign(sampled[i].top_logprobs, sampled[i].top_logprobs + n);
  }
}

}  // namespace moerun
