#include "kernels/cpu/attention.h"

#include <algorithm>
#include <array>
#include <vector>

#include "kernels/cpu/simd.h"
#include "moerun/half.h"

namespace moerun::cpu {

namespace {

/// Room for one sequence.
struct Scratch {
  std::vector<float> scores;  // [keys]
  std::vector<float> rows;    // [block_size, head_dim] of a block in e4m3
};

constexpr int kNumbers = 256;  // of e4m3
const std::array<float, kNumbers> kE4m3Numbers = [] {
  std::array<float, kNumbers> all{};
  for (size_t i = 0; i < all.size(); ++i) all[i] = e4m3_to_float(static_cast<uint8_t>(i));
  return all;
}();

/// The first `count` keys or values of a block's head.
const float* rows_of(const AttentionArgs& args, const void* cache, int64_t block_head, int64_t count,
                     Scratch& scratch) {
  const int64_t first = block_head * args.block_size * args.head_dim;
  if (!args.fp8) return static_cast<const float*>(cache) + first;
  const auto* const values = static_cast<const uint8_t*>(cache) + first;
  scratch.rows.resize(static_cast<size_t>(args.block_size * args.head_dim));
  for (int64_t i = 0; i < count * args.head_dim; ++i)
    scratch.rows[static_cast<size_t>(i)] = kE4m3Numbers[values[i]];
  return scratch.rows.data();
}

/// One head of one query over `keys` keys.
MOERUN_CLONES void attend(const AttentionArgs& args, const float* q, const int32_t* blocks, int64_t kv_head,
                          int64_t keys, Scratch& scratch, float* out) {
  float* const scores = scratch.scores.data();
  const int64_t d = args.head_dim;
  float largest = -INFINITY;
  for (int64_t first = 0; first < keys; first += args.block_size) {
    const int64_t count = std::min(args.block_size, keys - first);
    const int64_t block_head = blocks[first / args.block_size] * args.kv_heads + kv_head;
    const float* const k = rows_of(args, args.k_cache, block_head, count, scratch);
    for (int64_t i = 0; i < count; ++i) {
      scores[first + i] = dot16(q, k + i * d, d) * args.scale;
      largest = std::max(largest, scores[first + i]);
    }
  }
#pragma omp simd
  for (int64_t i = 0; i < keys; ++i) scores[i] = exp_f32(scores[i] - largest);
  float sum = 0;
  for (int64_t i = 0; i < keys; ++i) sum += scores[i];
  std::fill_n(out, d, 0.0F);
  for (int64_t first = 0; first < keys; first += args.block_size) {
    const int64_t count = std::min(args.block_size, keys - first);
    const int64_t block_head = blocks[first / args.block_size] * args.kv_heads + kv_head;
    const float* const v = rows_of(args, args.v_cache, block_head, count, scratch);
    for (int64_t i = 0; i < count; ++i) {
      const float p = scores[first + i];
#pragma omp simd
      for (int64_t j = 0; j < d; ++j) out[j] = __builtin_fmaf(p, v[i * d + j], out[j]);
    }
  }
  const float scale = 1.0F / sum * args.v_scale;
#pragma omp simd
  for (int64_t j = 0; j < d; ++j) out[j] *= scale;
}

}  // namespace

void attention(const AttentionArgs& args) {
  const int64_t d = args.head_dim, group = args.heads / args.kv_heads;
#pragma omp parallel for schedule(dynamic)
  for (int64_t seq = 0; seq < args.num_seqs; ++seq) {
    const int64_t begin = args.cu_seqlens_q[seq], end = args.cu_seqlens_q[seq + 1],
                  context = args.context_lens[seq];
    Scratch scratch{.scores = std::vector<float>(static_cast<size_t>(context))};
    for (int64_t token = begin; token < end; ++token)
      for (int64_t head = 0; head < args.heads; ++head) {
        const int64_t row = (token * args.heads + head) * d;
        attend(args, args.q + row, args.block_table + seq * args.max_blocks, head / group,
               context - (end - 1 - token), scratch, args.out + row);
      }
  }
}

}  // namespace moerun::cpu
