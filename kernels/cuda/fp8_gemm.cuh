#pragma once
// What the kernels of FP8 products share: a ring of stages in shared memory, the copies that fill it, and the
// sum over groups of K. Tokens are the M operand of wgmma, 64 for a consumer warpgroup, and weights the N
// operand: a thread then holds two tokens, and a group's scales are two of theirs times, mostly, two of the
// weights'. A producer warpgroup feeds two consumers: weights by bulk copies of packed blocks
// (packed_weight.h), with their scales; tokens by one tensor copy where they follow each other, else row by
// row with 16-byte copies.
//
// A stage is one group of K. Its products leave the tensor cores in a buffer of their own and are added,
// scaled, to the accumulators: while one consumer does that, the tensor cores work for the other.
#include "kernels/cuda/fp8.cuh"
#include "kernels/cuda/fp8_quantise.h"
#include "kernels/cuda/grouped_gemm.cuh"
#include "kernels/cuda/tensor_copy.cuh"

namespace moerun::cuda {

constexpr int kFp8BlockRows = Fp8PackedWeight::kBlockRows, kFp8Elements = Fp8PackedWeight::kElementBytes;
static_assert(Fp8PackedWeight::kBlockCols == kScaleGroup && kScaleGroup == kRowBytes && kFp8BlockRows == 128);
constexpr int kConsumerTokens = 64;

/// For tiles of kBlocks · 128 weight rows × up to kTokens tokens.
template <int kBlocks_, int kTokens_, int kStages_>
struct Fp8Stages {
  static constexpr int kBlocks = kBlocks_, kTokens = kTokens_, kStages = kStages_;
  alignas(1024) uint8_t weights[kStages][kBlocks][kFp8Elements];
  alignas(1024) uint8_t tokens[kStages][kTokens * kRowBytes];
  alignas(16) Fp8BlockScales weight_scales[kStages][kBlocks];
  float token_scales[kStages][kTokens];
  uint32_t places[kTokens];  ///< of the tile's rows: groups from the first one of the first row
  uint64_t full[kStages], empty[kStages];

  __device__ void init(int cluster_blocks) {
    for (int i = 0; i < kStages; ++i) {
      // Every producer warp's copies and scales, and what the copy engine brings.
      mbarrier_init(&full[i], kGroupThreads / kWarpSize + 1);
      mbarrier_init(&empty[i], cluster_blocks * kConsumerWarps);
    }
  }
};

/// What a tile is multiplied from.
struct Fp8Operands {
  const uint8_t* weights = nullptr;  ///< the first packed block of the first 128 rows
  int64_t to_second = 0;             ///< bytes to that of the second ones
  bool same_weights = false;         ///< for both blocks of a cluster
  const uint8_t* values = nullptr;   ///< of tokens
  const float* scales = nullptr;
  int32_t rows = 0, k_blocks = 0;
  const CUtensorMap* map = nullptr;  ///< of `values` where the tile's rows follow each other (fp8_rows_map)
  int32_t first_row = 0, first_block = 0;  ///< there
};

/// Of rows of e4m3, to copy kTokens × a group at a time; pairs of bytes are its elements.
template <int kTokens>
CUtensorMap fp8_rows_map(const uint8_t* values, int64_t rows, int64_t groups) {
  return tensor_map<2>(values, {groups * kScaleGroup / 2, rows}, {kScaleGroup / 2, kTokens});
}

/// Brings a stage's weights, and tokens that follow each other. By one thread.
template <int kClusterBlocks, class Stages>
__device__ __forceinline__ void fill_by_engine(Stages& stages, uint32_t stage, const Fp8Operands& from,
                                               int32_t block, uint64_t policy) {
  constexpr uint32_t kScaleBytes = sizeof(Fp8BlockScales);
  static_assert(kClusterBlocks == 1 || kClusterBlocks == Stages::kBlocks || Stages::kBlocks == 1);
  uint64_t* const full = &stages.full[stage];
  constexpr uint32_t kTokenBytes = Stages::kTokens * kRowBytes;
  mbarrier_arrive_expect(full, Stages::kBlocks * Fp8PackedWeight::kBlockBytes + (from.map ? kTokenBytes : 0));
  if (from.map)
    tensor_copy(smem_address(stages.tokens[stage]), *from.map, (from.first_block + block) * (kRowBytes / 2),
                from.first_row, full);
  const uint8_t* const first = from.weights + block * Fp8PackedWeight::kBlockBytes;
  auto* const weights = stages.weights[stage];
  auto* const scales = stages.weight_scales[stage];
  if (kClusterBlocks > 1 && from.same_weights) {  // each block of the cluster brings a part of them for both
    constexpr uint32_t kAll = (1 << kClusterBlocks) - 1;
    const uint32_t rank = cluster_rank();
    if constexpr (Stages::kBlocks == kClusterBlocks) {
      const uint8_t* const mine = first + rank * from.to_second;
      bulk_copy_multicast(weights[rank], mine, kFp8Elements, full, policy, kAll);
      bulk_copy_multicast(&scales[rank], mine + kFp8Elements, kScaleBytes, full, policy, kAll);
    } else {
      constexpr uint32_t kPart = kFp8Elements / kClusterBlocks;
      bulk_copy_multicast(weights[0] + rank * kPart, first + rank * kPart, kPart, full, policy, kAll);
      if (rank == 0) bulk_copy_multicast(&scales[0], first + kFp8Elements, kScaleBytes, full, policy, kAll);
    }
  } else {
#pragma unroll
    for (int i = 0; i < Stages::kBlocks; ++i) {
      const uint8_t* const one = first + i * from.to_second;
      bulk_copy(weights[i], one, kFp8Elements, full, policy);
      bulk_copy(&scales[i], one + kFp8Elements, kScaleBytes, full, policy);
    }
  }
}

/// A producer warp's part of a stage is there. Copies of tokens are ordered before wgmma here, since
/// consumers would wait for all their memory in each group if they did it.
template <class Stages>
__device__ __forceinline__ void hand_over(Stages& stages, uint32_t stage, bool copied) {
  if (copied) fence_async_proxy();
  __syncwarp();
  if (threadIdx.x % kWarpSize == 0) mbarrier_arrive(&stages.full[stage]);
}

/// Fills the ring with a tile's stages. By all threads of the producer, after `places` is complete.
template <int kClusterBlocks, class Stages>
__device__ __forceinline__ void fill(Stages& stages, Ring<Stages::kStages>& ring, const Fp8Operands& from,
                                     uint64_t policy) {
  constexpr int kRowThreads = 8, kRowsAPass = kGroupThreads / kRowThreads;  // eight threads copy 128 bytes
  constexpr int kTokens = Stages::kTokens, kPasses = kTokens / kRowsAPass;
  static_assert(kTokens <= kGroupThreads);
  const int thread = threadIdx.x % kGroupThreads, chunk = thread % kRowThreads, row0 = thread / kRowThreads;
  const uint32_t tokens0 = smem_address(stages.tokens) + row0 * kRowBytes + ((chunk ^ (row0 & 7)) << 4);
  uint32_t places[kPasses];
#pragma unroll
  for (int i = 0; i < kPasses; ++i) {
    const int32_t row = row0 + i * kRowsAPass;
    places[i] = row < from.rows ? stages.places[row] : 0;
  }
  const uint8_t* values = from.values + chunk * 16;
  const bool has_scale = thread < from.rows;
  const float* scales = from.scales + (has_scale ? stages.places[thread % kTokens] : 0);
  float scale = has_scale && from.k_blocks > 0 ? *scales : 0;
  // Rows that are copied one by one are handed over when the next kUnderWay stages' copies are on their way.
  constexpr int kUnderWay = 2;
  static_assert(kUnderWay < Stages::kStages);
  uint32_t oldest = ring.stage;  // that is not handed over
  const auto hand_over_oldest = [&] {
    hand_over(stages, oldest, true);
    oldest = oldest + 1 == Stages::kStages ? 0 : oldest + 1;
  };
  for (int32_t block = 0; block < from.k_blocks; ++block) {
    mbarrier_wait(&stages.empty[ring.stage], ring.parity ^ 1);
    if (thread == 0) fill_by_engine<kClusterBlocks>(stages, ring.stage, from, block, policy);
    // By ordinary loads, a group ahead: copies of four bytes would each take the time of 128.
    if (thread < kTokens) stages.token_scales[ring.stage][thread] = scale;
    if (has_scale && block + 1 < from.k_blocks) scale = *++scales;
    if (from.map) {
      hand_over(stages, ring.stage, false);
    } else {
      const uint32_t to = tokens0 + ring.stage * (kTokens * kRowBytes);
      // Rows past the end are left as they are: they only reach rows that nobody stores.
#pragma unroll
      for (int i = 0; i < kPasses; ++i) {
        if (row0 + i * kRowsAPass < from.rows)
          copy16_async(to + i * kRowsAPass * kRowBytes, values + static_cast<uint64_t>(places[i]) * kRowBytes,
                       true);
      }
      copies_commit();
      values += kRowBytes;
      if (block >= kUnderWay) {
        copies_wait<kUnderWay>();
        hand_over_oldest();
      }
    }
    ring.advance();
  }
  if (from.map) return;
  copies_wait<0>();
  for (int i = min(kUnderWay, from.k_blocks); i > 0; --i) hand_over_oldest();
}

/// A consumer's share of a tile.
struct Fp8Share {
  int token = 0, block = 0, row = 0;  ///< the first one; the first row within the first block
};

/// acc[p] [64, kColumns] = the share's tokens · kColumns weight rows of its block p, as moerun/fp8.h says:
/// acc[p][4j
/// + 2h + c] of lane l in warp w is token 16w + 8h + l/4, weight row 8j + 2(l%4) + c.
template <int kClusterBlocks, int kPieces, int kColumns, class Stages>
__device__ __forceinline__ void multiply(Stages& stages, Ring<Stages::kStages>& ring, const Fp8Share& share,
                                         int32_t k_blocks, float (&acc)[kPieces][kColumns / 2]) {
  const int lane = threadIdx.x % kWarpSize, warp = threadIdx.x % kGroupThreads / kWarpSize;
  const uint64_t tokens0 = wgmma_descriptor(smem_address(stages.tokens) + share.token * kRowBytes);
  const uint64_t weights0 =
      wgmma_descriptor(smem_address(stages.weights) + share.block * kFp8Elements + share.row * kRowBytes);
  const float* const token_scales0 = stages.token_scales[0] + share.token + warp * 16 + lane / 4;
  const Fp8BlockScales* const weight_scales0 = stages.weight_scales[0] + share.block;
  const int first_row = share.row + lane % 4 * 2;
  float sum[kColumns / 2];
#pragma unroll
  for (int i = 0; i < kColumns / 2; ++i) {
    sum[i] = 0;
#pragma unroll
    for (int p = 0; p < kPieces; ++p) acc[p][i] = 0;
  }
  for (int32_t block = 0; block < k_blocks; ++block) {
    mbarrier_wait(&stages.full[ring.stage], ring.parity);
    const uint64_t tokens = tokens0 + ring.stage * (Stages::kTokens * kRowBytes >> 4);
    const uint64_t weights = weights0 + ring.stage * (Stages::kBlocks * kFp8Elements >> 4);
#pragma unroll
    for (int p = 0; p < kPieces; ++p) {
      const uint64_t b = weights + p * (kFp8Elements >> 4);
      wgmma_fence();
      wgmma_64xNx32_e4m3<kColumns, false>(sum, tokens, b);
#pragma unroll
      for (int step = 1; step < kScaleGroup / 32; ++step)
        wgmma_64xNx32_e4m3<kColumns, true>(sum, tokens + 2 * step, b + 2 * step);
      wgmma_commit();
      const Fp8BlockScales& scales = weight_scales0[ring.stage * Stages::kBlocks + p];
      const float* const of_tokens = token_scales0 + ring.stage * Stages::kTokens;
      const float t0 = of_tokens[0], t1 = of_tokens[8];
      const float even = scales.even, odd = scales.odd;
      const bool uniform = scales.uniform != 0;
      const float scale[2][2] = {{even * t0, even * t1}, {odd * t0, odd * t1}};
      wgmma_wait<0>();
      wgmma_settled(sum);
      if (uniform) {
#pragma unroll
        for (int i = 0; i < kColumns / 2; ++i)
          acc[p][i] = fmaf(sum[i], scale[i / 4 % 2][i / 2 % 2], acc[p][i]);
      } else {
        const float* const rows = scales.row + first_row;
#pragma unroll
        for (int j = 0; j < kColumns / 8; ++j) {
          const float2 w = *reinterpret_cast<const float2*>(rows + 8 * j);
          float* const to = acc[p] + 4 * j;
          const float* const from = sum + 4 * j;
          to[0] = fmaf(from[0], w.x * t0, to[0]);
          to[1] = fmaf(from[1], w.y * t0, to[1]);
          to[2] = fmaf(from[2], w.x * t1, to[2]);
          to[3] = fmaf(from[3], w.y * t1, to[3]);
        }
      }
    }
    if constexpr (kClusterBlocks > 1) {  // to both, who write there
      if (lane < kClusterBlocks) mbarrier_arrive_in_cluster(&stages.empty[ring.stage], lane);
    } else {
      if (lane == 0) mbarrier_arrive(&stages.empty[ring.stage]);
    }
    ring.advance();
  }
}

/// Turns a warp's results around in 1 KiB pieces of shared memory, eight tokens of 64 columns, of which it
/// has two: `word(p, half, j)` gives the two columns from 8j + 2(lane % 4) on of piece p for token 8·half +
/// lane/4; `put(token, column, value)` takes eight columns of one of the warp's 16 tokens.
template <int kPieces, int kColumns, class Word, class Put>
__device__ __forceinline__ void store_turned(uint8_t (*staging)[1024], Word word, Put put) {
  const int lane = threadIdx.x % kWarpSize;
  const int write_token = lane % 8, write_chunk = lane / 8, read_token = lane / 8, read_chunk = lane % 8;
  int turn = 0;
#pragma unroll
  for (int p = 0; p < kPieces; ++p) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
#pragma unroll
      for (int first = 0; first < kColumns / 8; first += 8, ++turn) {
        uint8_t* const buffer = staging[turn % 2];
#pragma unroll
        for (int i = 0; i < 8; i += 4)
          store_matrices(smem_address(buffer) + write_token * 128 + (((write_chunk + i) ^ write_token) << 4),
                         word(p, half, first + i), word(p, half, first + i + 1), word(p, half, first + i + 2),
                         word(p, half, first + i + 3));
        __syncwarp();
#pragma unroll
        for (int i = 0; i < 8; i += 4) {
          const int token = read_token + i;
          put(half * 8 + token, p * 128 + first * 8 + read_chunk * 8,
              *reinterpret_cast<const uint4*>(buffer + token * 128 + ((read_chunk ^ token) << 4)));
        }
      }
    }
  }
}

constexpr int kFp8ProducerRegisters = 56, kFp8ConsumerRegisters = 224;
static_assert((kFp8ProducerRegisters + 2 * kFp8ConsumerRegisters) * kGroupThreads <= kGemmRegisters);

/// A kernel's body once its barriers are initialised: one warpgroup runs `produce`, two `consume(0)` and
/// `consume(1)`.
template <int kClusterBlocks, class Produce, class Consume>
__device__ __forceinline__ void run_warpgroups(Produce produce, Consume consume) {
  __syncthreads();
  if constexpr (kClusterBlocks > 1) {
    cluster_arrive_relaxed();
    cluster_wait();
  }
  dependency_wait();
  dependents_launch();
  const int group =
      __shfl_sync(kFullMask, threadIdx.x / kGroupThreads, 0);  // the same in a warp: the compiler sees it
  if (group == 0) {
    registers_release<kFp8ProducerRegisters>();
    produce();
  } else {
    registers_acquire<kFp8ConsumerRegisters>();
    consume(group - 1);
  }
  if constexpr (kClusterBlocks > 1) {
    // Not gone before all that the other block does to this one's memory is done: its last arrivals, too.
    __syncwarp();
    cluster_arrive();
    cluster_wait();
  }
}

}  // namespace moerun::cuda
