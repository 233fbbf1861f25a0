// A matrix product whose K is summed in chunks, and the chunks' rounded sums in a binary tree, in one pass:
// the sums of a chunk never leave the multiprocessor.
//
// As in grouped_gemm.cu, weights are the M operand of wgmma (128 rows a tile, 64 for each of two consumer
// warpgroups) and tokens the N operand; one thread feeds a ring of shared-memory stages by tensor copies. The
// blocks are persistent, and the producer runs ahead across chunks and tiles. Where a tile has few tokens,
// two blocks of a cluster take tiles with the same weights: each copies half of them to both.
#include "kernels/cuda/tree_gemm.h"

#include <algorithm>
#include <utility>

#include "kernels/cuda/tensor_copy.cuh"
#include "kernels/cuda/tree_gemm_tiling.h"
#include "kernels/cuda/wgmma.cuh"

namespace moerun {
namespace {

using namespace cuda;

constexpr int kGroupThreads = 128, kConsumers = 2, kThreads = (1 + kConsumers) * kGroupThreads;
constexpr int kConsumerWarps = kConsumers * kGroupThreads / kWarpSize;
constexpr int kFeatures = kTreeGemmFeatures;
constexpr int kBlockK = kTreeGemmBlockK, kRowBytes = kBlockK * 2;
static_assert(kFeatures == kConsumers * 64 && kRowBytes == 128);
// setmaxnreg waits for ever for more registers than the block starts with.
constexpr int kProducerRegisters = 40, kConsumerRegisters = 232;
static_assert((kProducerRegisters + kConsumers * kConsumerRegisters) * kGroupThreads <= 168 * kThreads);
constexpr int kSharedBytes = 227 * 1024, kMaxStages = 8, kStagingTiles = 4;

struct Params {
  CUtensorMap x, w;
  void* out;
  int32_t rows, out_features;
  int32_t k_blocks;       // of a chunk
  int32_t pairs;          // of chunks
  int32_t feature_tiles;  // tiles along the features
  int32_t groups;         // of a cluster's tiles, in all
};

template <int kWidth>
struct Shared {
  static constexpr int kCluster = tree_gemm_cluster(kWidth);
  static constexpr int kWeightSlice = kFeatures / kCluster;  // rows that a block copies
  static constexpr int kTokenBytes = kWidth * kRowBytes, kWeightBytes = kFeatures * kRowBytes;
  // The first pair's sum waits for the second's in registers, where there are enough. Tiles of 216 keep some
  // words of it in local memory, outside the loop over K; in shared memory they took longer.
  static constexpr bool kKeepsInRegisters = kWidth <= 216;
  static constexpr int kKeptWords = kKeepsInRegisters ? 1 : kWidth / 4;
  static constexpr int kBesides =
      (kKeptWords * kGroupThreads * 4 + 4 * kStagingTiles * 512) * kConsumers + 256;
  static constexpr int kStages =
      std::min(kMaxStages, (kSharedBytes - kBesides) / (kTokenBytes + kWeightBytes));

  alignas(1024) uint8_t weights[kStages][kWeightBytes];
  alignas(1024) uint8_t tokens[kStages][kTokenBytes];
  alignas(16) uint8_t staging[kConsumerWarps][kStagingTiles][512];  // where a warp turns its results around
  uint32_t kept[kKeptWords][kConsumers * kGroupThreads];
  uint64_t full[kStages], empty[kStages];
};

// ---------------------------------------------------------------- kernels: the producer, one thread

template <int kWidth>
__device__ __forceinline__ void produce(const Params& p, Shared<kWidth>& shared) {
  using S = Shared<kWidth>;
  const auto rank = static_cast<int32_t>(cluster_rank());
  const uint32_t weights0 = smem_address(shared.weights) + rank * (S::kWeightSlice * kRowBytes);
  const uint32_t tokens0 = smem_address(shared.tokens);
  Ring<S::kStages> ring;
  for (int32_t group = blockIdx.x / S::kCluster; group < p.groups; group += gridDim.x / S::kCluster) {
    const int32_t feature = group % p.feature_tiles * kFeatures + rank * S::kWeightSlice;
    const int32_t token = (group / p.feature_tiles * S::kCluster + rank) * kWidth;
    for (int32_t block = 0; block < 2 * p.pairs * p.k_blocks; ++block) {
      uint64_t* const full = &shared.full[ring.stage];
      mbarrier_wait(&shared.empty[ring.stage], ring.parity ^ 1);
      mbarrier_arrive_expect(full, S::kWeightBytes + S::kTokenBytes);
      const uint32_t weights = weights0 + ring.stage * S::kWeightBytes;
      if constexpr (S::kCluster == 1)
        tensor_copy(weights, p.w, block * kBlockK, feature, full);
      else
        tensor_copy_multicast(weights, p.w, block * kBlockK, feature, full, (1 << S::kCluster) - 1);
      tensor_copy(tokens0 + ring.stage * S::kTokenBytes, p.x, block * kBlockK, token, full);
      ring.advance();
    }
  }
  // Not gone before all that others of the cluster do to this block's memory is done: what it copied has been
  // read everywhere, and what was copied to it by its own consumers.
  for (int i = 0; i < S::kStages; ++i) {
    mbarrier_wait(&shared.empty[ring.stage], ring.parity ^ 1);
    ring.advance();
  }
}

// ---------------------------------------------------------------- kernels: the consumers

/// Tells the blocks that write to this one's stage that a warp has read it.
template <int kWidth>
__device__ __forceinline__ void release(Shared<kWidth>& shared, uint32_t stage) {
  constexpr int kCluster = Shared<kWidth>::kCluster;
  const uint32_t lane = threadIdx.x % kWarpSize;
  if (lane >= kCluster) return;
  if constexpr (kCluster == 1)
    mbarrier_arrive(&shared.empty[stage]);
  else
    mbarrier_arrive_in_cluster(&shared.empty[stage], lane);
}

/// d [64, kWidth] = this consumer's weight rows · tokensᵀ over one chunk, ascending along K.
template <class T, int kWidth>
__device__ __forceinline__ void multiply(Shared<kWidth>& shared, Ring<Shared<kWidth>::kStages>& ring,
                                         int consumer, int32_t k_blocks, float (&d)[kWidth / 2]) {
  using S = Shared<kWidth>;
  const uint64_t weights0 = wgmma_descriptor(smem_address(shared.weights) + consumer * 64 * kRowBytes);
  const uint64_t tokens0 = wgmma_descriptor(smem_address(shared.tokens));
#pragma unroll
  for (int i = 0; i < kWidth / 2; ++i) d[i] = 0;
  uint32_t previous = 0;
  for (int32_t block = 0; block < k_blocks; ++block) {
    mbarrier_wait(&shared.full[ring.stage], ring.parity);
    const uint64_t weights = weights0 + ring.stage * (S::kWeightBytes >> 4);
    const uint64_t tokens = tokens0 + ring.stage * (S::kTokenBytes >> 4);
    wgmma_fence();
#pragma unroll
    for (int step = 0; step < kBlockK / 16; ++step)
      wgmma_64xNx16<T, kWidth>(d, weights + 2 * step, tokens + 2 * step);
    wgmma_commit();
    if (block > 0) {
      wgmma_wait<1>();
      release<kWidth>(shared, previous);
    }
    previous = ring.stage;
    ring.advance();
  }
  wgmma_wait<0>();
  wgmma_settled(d);
  release<kWidth>(shared, previous);
}

/// sum = the rounded sum of two chunks' products, each rounded: sum[2j + h] of lane l in warp w is feature
/// 16w + 8h + l/4 of tokens 8j + 2(l%4) and the next.
template <class T, int kWidth>
__device__ __forceinline__ void multiply_pair(Shared<kWidth>& shared, Ring<Shared<kWidth>::kStages>& ring,
                                              int consumer, int32_t k_blocks, uint32_t (&sum)[kWidth / 4]) {
  float d[kWidth / 2];
  multiply<T, kWidth>(shared, ring, consumer, k_blocks, d);
#pragma unroll
  for (int i = 0; i < kWidth / 4; ++i) sum[i] = pack_floats<T>(d[2 * i], d[2 * i + 1]);
  multiply<T, kWidth>(shared, ring, consumer, k_blocks, d);
#pragma unroll
  for (int i = 0; i < kWidth / 4; ++i) sum[i] = add_pairs<T>(sum[i], pack_floats<T>(d[2 * i], d[2 * i + 1]));
}

/// A warp's 16 features, 32 bytes a token, from `feature` and `token` on. With `add`, they are added to what
/// this same thread stored there before.
template <class T, int kWidth>
__device__ __forceinline__ void store(const Params& p, int32_t feature, int32_t token, bool add,
                                      uint8_t (*staging)[512], const uint32_t (&sum)[kWidth / 4]) {
  const int lane = threadIdx.x % kWarpSize;
  const Turned16 turned(lane);
  auto* const out = static_cast<uint16_t*>(p.out) + static_cast<int64_t>(token) * p.out_features + feature +
                    turned.half * 8;
  const int32_t tokens = feature + turned.half * 8 < p.out_features ? min(kWidth, p.rows - token) : 0;
  constexpr int kWords = kWidth / 4, kRounds = ceil_div(kWidth, 16);  // the last may be half a round
  const auto word = [&](int i) { return i < kWords ? sum[i < kWords ? i : 0] : 0; };
#pragma unroll
  for (int first = 0; first < kRounds; first += kStagingTiles) {
    __syncwarp();  // the round before, or the tile before, has been read
    uint4 old[kStagingTiles];
#pragma unroll
    for (int i = 0; i < kStagingTiles; ++i) {
      if (first + i >= kRounds) break;
      const int at = 4 * (first + i);
      const int32_t row = (first + i) * 16 + turned.token;
      if (add && row < tokens)
        old[i] = *reinterpret_cast<const uint4*>(out + static_cast<int64_t>(row) * p.out_features);
      store_matrices_transposed(smem_address(staging[i]) + turned.write_at, sum[at], sum[at + 1],
                                word(at + 2), word(at + 3));
    }
    __syncwarp();
#pragma unroll
    for (int i = 0; i < kStagingTiles; ++i) {
      if (first + i >= kRounds) break;
      const int32_t row = (first + i) * 16 + turned.token;
      if (row >= tokens) continue;
      uint4 value = *reinterpret_cast<const uint4*>(staging[i] + turned.read_at);
      if (add) value = add_rounded<T>(old[i], value);
      *reinterpret_cast<uint4*>(out + static_cast<int64_t>(row) * p.out_features) = value;
    }
  }
}

template <class T, int kWidth>
__device__ __forceinline__ void consume(const Params& p, Shared<kWidth>& shared, int consumer) {
  using S = Shared<kWidth>;
  constexpr int kWords = kWidth / 4;
  const int thread = threadIdx.x % kGroupThreads, warp = thread / kWarpSize;
  const auto rank = static_cast<int32_t>(cluster_rank());
  Ring<S::kStages> ring;
  for (int32_t group = blockIdx.x / S::kCluster; group < p.groups; group += gridDim.x / S::kCluster) {
    uint32_t sum[kWords], in_registers[S::kKeepsInRegisters ? kWords : 1];
    // A thread's own.
    const auto kept = [&](int i) -> uint32_t& {
      if constexpr (S::kKeepsInRegisters)
        return in_registers[i];
      else
        return shared.kept[i][consumer * kGroupThreads + thread];
    };
    // Two pairs of chunks meet here, two of those in `out`.
#pragma unroll 1
    for (int32_t pair = 0; pair < p.pairs; pair += 2) {
      multiply_pair<T, kWidth>(shared, ring, consumer, p.k_blocks, sum);
      if (p.pairs > 1) {
#pragma unroll
        for (int i = 0; i < kWords; ++i) kept(i) = sum[i];
        multiply_pair<T, kWidth>(shared, ring, consumer, p.k_blocks, sum);
#pragma unroll
        for (int i = 0; i < kWords; ++i) sum[i] = add_pairs<T>(kept(i), sum[i]);
      }
      store<T, kWidth>(p, group % p.feature_tiles * kFeatures + consumer * 64 + warp * 16,
                       (group / p.feature_tiles * S::kCluster + rank) * kWidth, pair > 0,
                       shared.staging[consumer * 4 + warp], sum);
    }
  }
}

template <class T, int kWidth>
__global__ void __launch_bounds__(kThreads, 1) __cluster_dims__(tree_gemm_cluster(kWidth))
    tree_gemm_kernel(const __grid_constant__ Params p) {
  extern __shared__ __align__(1024) uint8_t shared_bytes[];
  auto& shared = *reinterpret_cast<Shared<kWidth>*>(shared_bytes);
  if (threadIdx.x == 0) {
    dependents_launch();  // without a wait: launched with Follow::anything
    tensor_map_prefetch(p.x);
    tensor_map_prefetch(p.w);
    for (int i = 0; i < Shared<kWidth>::kStages; ++i) {
      mbarrier_init(&shared.full[i], 1);
      mbarrier_init(&shared.empty[i], Shared<kWidth>::kCluster * kConsumerWarps);
    }
    mbarrier_init_fence();
  }
  __syncwarp();
  cluster_arrive_relaxed();
  cluster_wait();
  const int group = threadIdx.x / kGroupThreads;
  if (group == 0) {
    registers_release<kProducerRegisters>();
    if (threadIdx.x == 0) produce<kWidth>(p, shared);
  } else {
    registers_acquire<kConsumerRegisters>();
    consume<T, kWidth>(p, shared, group - 1);
  }
}

// ---------------------------------------------------------------- launcher

template <class T, int kWidth>
void launch_width(const TreeGemmArgs& args, cudaStream_t stream) {
  using S = Shared<kWidth>;
  static_assert(sizeof(S) <= kSharedBytes && S::kStages >= 3);
  const Params p{
      .x = tensor_map<2>(args.x, {args.in_features, args.rows}, {kBlockK, kWidth}),
      .w = tensor_map<2>(args.w, {args.in_features, args.out_features}, {kBlockK, S::kWeightSlice}),
      .out = args.out,
      .rows = static_cast<int32_t>(args.rows),
      .out_features = static_cast<int32_t>(args.out_features),
      .k_blocks = static_cast<int32_t>(args.in_features / args.chunks / kBlockK),
      .pairs = args.chunks / 2,
      .feature_tiles = static_cast<int32_t>(ceil_div<int64_t>(args.out_features, kFeatures)),
      .groups = static_cast<int32_t>(tree_gemm_clusters(args.rows, args.out_features, kWidth))};
  const int32_t clusters = std::min(p.groups, args.num_sms / S::kCluster);
  constexpr auto* kernel = tree_gemm_kernel<T, kWidth>;
  CUDA_CHECK(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, sizeof(S)));
  // It follows attention, which may end on two streams: nothing is left to wait for when it starts.
  launch(Follow::anything, kernel, static_cast<unsigned>(clusters * S::kCluster), kThreads, sizeof(S), stream,
         p);
}

template <class T, size_t... i>
void launch_one_of(int32_t width, const TreeGemmArgs& args, cudaStream_t stream, std::index_sequence<i...>) {
  ((width == kTreeGemmWidths[i] ? launch_width<T, kTreeGemmWidths[i]>(args, stream) : void()), ...);
}

}  // namespace

void launch_tree_gemm(const TreeGemmArgs& args, cudaStream_t stream) {
  if (!tree_gemm_takes(args.rows, args.out_features, args.in_features, args.chunks))
    throw Error("tree_gemm does not take a product of " + std::to_string(args.rows) + " rows, " +
                std::to_string(args.out_features) + " × " + std::to_string(args.in_features) + " in " +
                std::to_string(args.chunks) + " chunks");
  with_element(args.dtype, [&]<class T>(T) {
    launch_one_of<T>(tree_gemm_width(args.rows, args.out_features, args.num_sms), args, stream,
                     std::make_index_sequence<kTreeGemmWidths.size()>{});
  });
}

}  // namespace moerun
